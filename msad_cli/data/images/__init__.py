"""Decoding images."""
