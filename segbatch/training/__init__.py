"""Training: labeled images in, weights out that ``segbatch run --weights`` takes. Nothing here knows of Ray."""
