"""Data sets: annotations, layouts, images, batches."""
