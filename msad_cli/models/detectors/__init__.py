"""One file a detector; base.py says what each must answer."""
