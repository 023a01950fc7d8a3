"""COCO's numbers of a model on a split, curves, latency."""
