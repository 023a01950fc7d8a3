"""What is known in parts of maps alone: the head's outputs are those of the masked maps, and few are computed."""

from unittest.mock import patch

import torch
from support.training import detectors, views
from torch import Tensor

from msad_cli.distillation.knowledge import Inside, best_view


def test_outputs_of_masked_maps_are_those_of_the_head_on_them() -> None:
    _, student = detectors()
    known = best_view(student, views())
    masks = [torch.ones(2, 1, *each.shape[-2:]) for each in known.pyramid]
    for each in masks:
        each[1, :, :, each.shape[-1] // 2 :] = 0
    partial = known.where(Inside(masks, [True, False]))
    assert [torch.equal(a, b * m) for a, b, m in zip(partial.pyramid, known.pyramid, masks, strict=True)] == [True] * 5
    expected = student.outputs(partial.pyramid)
    assert not torch.equal(expected["cls_logits"], known.outputs["cls_logits"])
    counts: list[int] = []
    head = student.kind.outputs

    def outputs(pyramid: list[Tensor]) -> dict[str, Tensor]:
        counts.append(len(pyramid[0]))
        return head(pyramid)

    with patch.object(student.kind, "outputs", outputs):
        found = partial.outputs
    assert counts == [1]  # of the image of which a part is known; the other's were there
    for name, each in expected.items():
        torch.testing.assert_close(found[name], each)


def test_detections_leave_the_outputs_that_they_are_made_of() -> None:
    _, student = detectors()
    known = best_view(student.eval(), views())
    before = {name: each.clone() for name, each in known.outputs.items()}
    found = student.kind.detect(known.pyramid, known.frame, known.outputs)
    assert all(len(each["boxes"]) for each in found)
    assert all(torch.equal(each, before[name]) for name, each in known.outputs.items())
