"""Training: labeled images in, weights for ``segbatch run --weights`` out. Does not import Ray."""
