"""Writing data sets."""
