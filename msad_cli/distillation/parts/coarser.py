"""Maps brought to a coarser grid, where they stay."""

import torch.nn.functional as F
from torch import Tensor


def coarser(maps: Tensor, k: int) -> Tensor:
    """(N, C, h, w) -> (N, C, h/k, w/k): a weighted mean around every k-th cell; h and w are multiples of k.

    Cells of a strided network are anchored: cell j of a grid k times as coarse looks at the place of cell k·j. So the
    mean is centred on that one, with weights that fall linearly to 0 at the next two (¼, ½, ¼ at k = 2). The mean over
    k × k cells, or a bilinear resize, would lie (k − 1) / 2 cells further right and down. Beyond the left and the upper
    edge the first cells are repeated.
    """
    padded = F.pad(maps, (k - 1, 0, k - 1, 0), mode="replicate")
    # Two means over k cells in a row are one with such weights.
    return F.avg_pool2d(F.avg_pool2d(padded, k, stride=1), k)
