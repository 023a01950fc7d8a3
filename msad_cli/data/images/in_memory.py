"""Images that are no files: Pillow's, NumPy's and torch's."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from msad_cli.data.images.contents import eight_bits, is_grey_and_deep
from msad_cli.data.images.decode import eight_bit_rgb
from msad_cli.data.images.tones import BY_FILE, Tones
from msad_cli.errors import UsageError

KNOWN = "give a path, a PIL image, a uint8 array (H, W, 3) or a uint8 tensor (3, H, W)"


def rgb_image(image: Any, name: str, tones: Tones = BY_FILE) -> Image.Image:
    """A PIL image of any mode, a uint8 array (H, W, 3) or a uint8 tensor (3, H, W), as RGB; nothing turns it.

    Args:
        name: what the image is called in an error.
        tones: by which one of more than 8 bits becomes one of 8.

    Raises:
        UsageError: it is none of these, or has no pixels.
    """
    if isinstance(image, Image.Image):
        if not image.width * image.height:
            raise UsageError(f"{name}: a PIL image without pixels", KNOWN, code="image-without-pixels")
        if tones.are_set and is_grey_and_deep(image):
            return eight_bits(np.asarray(image), "L", tones.black, tones.white)
        return eight_bit_rgb(image)
    if not isinstance(image, np.ndarray | torch.Tensor):
        raise UsageError(f"{name}: {type(image).__name__}", KNOWN, code="not-an-image")
    kind = f"{type(image).__name__} of {str(image.dtype).removeprefix('torch.')} {tuple(image.shape)}"
    pixels = image
    if isinstance(image, torch.Tensor):
        pixels = image.detach().movedim(0, -1).cpu().numpy() if image.ndim == 3 else np.empty(0)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise UsageError(f"{name}: {kind}", KNOWN, code="not-an-image")
    return Image.fromarray(np.ascontiguousarray(pixels))
