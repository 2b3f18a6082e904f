"""Run folders: what a run was asked for, its tables and its lock."""
