"""Run folders: request record, result tables and lock."""
