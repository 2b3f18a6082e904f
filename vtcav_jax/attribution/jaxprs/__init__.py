"""Reading and splitting of traced functions (jaxprs)."""
