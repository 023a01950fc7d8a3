"""Where weights start from."""
