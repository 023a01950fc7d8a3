"""Faster R-CNN (Ren et al., NeurIPS 2015; Lin et al., CVPR 2017): torchvision's, with a head of any size."""

from torchvision.models.detection import FasterRCNN

from msad_cli.models.detectors.base import HeadRows, PublishedWeights
from msad_cli.models.detectors.two_stage import BOX_ROWS, TWO_STAGE_NAMES, TwoStageKind, two_stage_options
from msad_cli.models.pyramid import AlignedBackbone


class FasterRCNNKind(TwoStageKind):
    """Faster R-CNN on given features."""

    rows = HeadRows(classes=BOX_ROWS)
    published = PublishedWeights(name="fasterrcnn_resnet50_fpn", old_names=TWO_STAGE_NAMES, without_epsilon=True)

    def build(self, backbone: AlignedBackbone, classes: int) -> FasterRCNN:
        """At 256 channels torchvision's own in shape."""
        return FasterRCNN(backbone, **two_stage_options(self, classes))
