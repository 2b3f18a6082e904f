"""Video-TCAV: concept vectors of video networks and the sensitivity of class scores along them."""
