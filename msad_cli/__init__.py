"""msad: detectors with the speed of small images and nearly the accuracy of large ones."""

__version__ = "0.1.0"
