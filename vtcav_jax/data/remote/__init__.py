"""Videos that are no local files: objects at addresses, and members of tar files."""
