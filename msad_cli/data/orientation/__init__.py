"""EXIF orientations, and labels that were made without them."""
