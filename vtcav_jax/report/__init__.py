"""Report pages and figures, made from the tables of a run folder."""
