"""Changes of class scores when activations are moved along a concept vector."""
