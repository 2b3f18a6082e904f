"""The command line: flags, help, errors and one module per task."""
