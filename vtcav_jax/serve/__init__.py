"""Interactive page of runs: a server on this machine, and the page that it sends."""
