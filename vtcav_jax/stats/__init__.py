"""Statistics shared by all packages: intervals and quadrature."""
