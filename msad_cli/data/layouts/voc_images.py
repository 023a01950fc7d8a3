"""Which image each XML file of a VOC set is of: the one of its own name, else the one that its `filename` names."""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import takewhile

from msad_cli.data.images.places import alike, parts
from msad_cli.data.layouts.image_folders import USUAL


def images_of(
    told: Mapping[str, str], images: Sequence[str], beside: str
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The image of each XML file, relative to the folder of the images; a name of no file for those that have none.

    And those that could be it, where there are several.

    Args:
        told: the `filename` of each XML file, by its own name without suffix, relative to the folder of all of them.
        images: that are there, relative to their folder.
        beside: the folder of the XML files, as seen from that of the images.
    """
    by_stem: dict[str, list[str]] = defaultdict(list)
    by_base: dict[str, list[str]] = defaultdict(list)
    for each in images:
        stem = alike(os.path.splitext(each)[0])
        by_stem[stem].append(each)
        by_base[os.path.basename(stem)].append(each)
    folders = ["", *sorted({each.split("/")[0] for each in images if each.split("/")[0].casefold() in USUAL}), beside]

    def called(name: str) -> list[str]:
        """Images of a name without suffix: in the usual folders, else wherever there is only one."""
        for folder in folders:
            if found := by_stem.get(alike(os.path.normpath(os.path.join(folder, name)))):
                return found
        found = _nearest(name, _at_home(by_base.get(alike(os.path.basename(name)), [])))
        return found if len({os.path.dirname(each) for each in found}) == 1 else []

    placed: dict[str, str] = {}
    shared: dict[str, list[str]] = {}
    for name, told_name in told.items():
        if found := called(name):
            same = [each for each in found if alike(os.path.basename(each)) == alike("".join(parts(told_name)[-1:]))]
            placed[name] = (same or found)[-1]
            if len(found) > 1 and not same:
                shared[name] = found
    renamed: dict[str, str] = {}
    for name, told_name in told.items():
        last = "".join(parts(told_name)[-1:])
        if name not in placed and last:
            whole = os.path.join(os.path.dirname(name), last)
            found = called(os.path.splitext(whole)[0]) or called(whole)  # a dot may be a part of a name
            exact = [each for each in found if alike(os.path.basename(each)) == alike(last)] or found
            renamed |= {name: exact[-1]} if exact else {}
    claims = Counter([*placed.values(), *renamed.values()])
    placed |= {name: image for name, image in renamed.items() if claims[image] == 1}
    return {name: placed.get(name, f"{name}.jpg") for name in told}, shared


def _nearest(name: str, found: Sequence[str]) -> list[str]:
    """Of images in several folders, those that share the most folders with an XML file, such as that of the split."""

    def shared(image: str) -> int:
        pairs = zip(name.split("/")[:-1], image.split("/")[:-1], strict=False)
        return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))

    most = max(map(shared, found), default=0)
    return [each for each in found if shared(each) == most]


def _at_home(found: Sequence[str]) -> list[str]:
    """Of images in several folders, those in one that is called as such."""
    usual = [each for each in found if any(part.casefold() in USUAL for part in each.split("/")[:-1])]
    return usual or list(found)
