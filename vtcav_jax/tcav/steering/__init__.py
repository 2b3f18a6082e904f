"""What class scores do when activations are really moved along a concept vector."""
