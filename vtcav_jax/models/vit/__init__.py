"""Plain video transformers, whose tokens all attend to each other, with parameter names of transformers."""
