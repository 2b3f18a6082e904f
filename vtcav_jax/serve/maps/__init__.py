"""Maps on the interactive page: stored ones, and those that it asks for."""
