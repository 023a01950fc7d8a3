"""Exported models: written, checked, run."""
