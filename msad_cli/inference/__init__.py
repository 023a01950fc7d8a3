"""Prediction on images and videos, and what is written of it."""
