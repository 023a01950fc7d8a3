"""The only floor that imports torchvision.models.detection."""
