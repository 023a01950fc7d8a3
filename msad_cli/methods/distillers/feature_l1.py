"""L1 between aligned pyramids (MSAD, section 3.3, equation for L_KD), reduced as the official code reduces it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def feature_l1(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Sum over levels of the mean absolute difference of maps (N, C, h, w); padding counts, as in the code.

    The paper prints a plain sum; its size would grow with the image, and no published weight fits it.
    """
    differences = [F.l1_loss(s.float(), t.float()) for s, t in zip(student, teacher, strict=True)]
    return torch.stack(differences).sum()
