"""The rows of a head that belong to classes and keypoints: taken over by their names, never by their places."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from msad_cli.models.detectors.base import DetectorKind
from msad_cli.text import listed

BACKGROUND = "__background__"
"""What torchvision calls the first of its classes, which is none."""


def with_own_rows(
    kind: DetectorKind, state: Mapping[str, Tensor], classes: Sequence[str], keypoints: Sequence[str], before: str = ""
) -> dict[str, Tensor]:
    """A state whose rows are those of the detector's own classes and keypoints, in its own order.

    Classes and keypoints that the state does not know have the detector's own rows, which are its start. Layers of
    another shape than a head of these classes and keypoints has stay as they are.

    Args:
        kind: the detector.
        state: names as the core has them.
        classes, keypoints: names of those whose rows the state holds, in order; without the background.
        before: what stands before the core's names in `state`.
    """
    layers, spec = kind.rows, kind.spec
    taken, own = dict(state), kind.core.state_dict()
    first = [BACKGROUND] if layers.background else []
    names, theirs = [*first, *(each.name for each in spec.classes)], [*first, *classes]
    for layer, repeats in layers.classes.items():
        for name in (f"{layer}.weight", f"{layer}.bias"):
            rows = _rows(own[name], state.get(before + name), names, theirs, repeats)
            taken |= {} if rows is None else {before + name: rows}
    if layers.keypoints and keypoints:
        weight, bias = f"{layers.keypoints}.weight", f"{layers.keypoints}.bias"
        found = state.get(before + weight)
        # A transposed convolution has its outputs in the second dimension.
        turned = None if found is None else found.transpose(0, 1)
        rows = _rows(own[weight].transpose(0, 1), turned, spec.keypoints, keypoints)
        taken |= {} if rows is None else {before + weight: rows.transpose(0, 1)}
        rows = _rows(own[bias], state.get(before + bias), spec.keypoints, keypoints)
        taken |= {} if rows is None else {before + bias: rows}
    return taken


def _rows(
    own: Tensor, found: Tensor | None, names: Sequence[str], theirs: Sequence[str], repeats: int = 1
) -> Tensor | None:
    """`own` (repeats · names · n, …) with the rows of `found` where names agree; n rows make a name's.

    None where `found` has not these rows.
    """
    if found is None or found.shape[1:] != own.shape[1:] or len(found) * len(names) != len(own) * len(theirs):
        return None
    rows: Tensor = own.unflatten(0, (repeats, len(names), -1)).clone()
    source = found.unflatten(0, (repeats, len(theirs), -1))
    for mine, place in enumerate(partners(names, theirs)):
        if place is not None:
            rows[:, mine] = source[:, place]
    return rows.flatten(0, 2)


def partners(names: Sequence[str], theirs: Sequence[str]) -> list[int | None]:
    """The place in `theirs` of each name, in any case where none is the same; None where there is none.

    Of several classes of one name the first is the partner of the first, and the second of the second.
    """
    found: list[int | None] = []
    for place, name in enumerate(names):
        before = list(names[:place]).count(name)
        same = [i for i, each in enumerate(theirs) if each == name]
        alike = [i for i, each in enumerate(theirs) if each.lower() == name.lower()]
        known = same or alike
        found.append(known[min(before, len(known) - 1)] if known else None)
    return found


def said(names: Sequence[str], theirs: Sequence[str]) -> str:
    """Which classes keep what was learnt of them, in words."""
    found = partners(names, theirs)
    kept = [name for name, place in zip(names, found, strict=True) if place is not None]
    anew = [name for name, place in zip(names, found, strict=True) if place is None]
    if not anew:
        return f"the head keeps its rows of all {len(names)} classes, by name"
    if not kept:
        return f"the head keeps no row of a class; from the prior: {listed(anew)}"
    return f"the head keeps its rows of {listed(kept)}, by name; from the prior: {listed(anew)}"
