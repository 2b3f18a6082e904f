"""What a video model has learnt: Video-TCAV, attribution and feature pyramids for any JAX video classifier."""
