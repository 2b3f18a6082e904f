"""Concept vectors of video networks and what class scores do along them, in example space."""
