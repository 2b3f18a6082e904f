"""SVG figures and their PNG copies."""
