"""The detector. The only floor that imports torchvision's models."""
