"""One file a layout of data sets; base.py finds which one it is."""
