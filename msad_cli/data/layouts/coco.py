"""COCO folders: annotations/instances_train2017.json and train2017/, with anything in place of 2017."""

from pathlib import Path

from msad_cli.data.layouts.base import Files, Layout
from msad_cli.data.layouts.image_folders import image_folder
from msad_cli.data.layouts.json_parts import part_of
from msad_cli.data.layouts.split_names import own_split, split_in, split_named
from msad_cli.errors import DataError

KINDS = ("instances", "person_keypoints")
"""COCO's annotation files."""
UNLABELLED = "image_info"
"""What COCO calls the file of a test split, whose annotations nobody is given: it never stands in for val."""


def split_of(file: Path) -> str | None:
    """The split that an annotation file is of, by its name behind the kind: `instances_Validation.json` is val's."""
    rest = file.stem
    for kind in (*KINDS, UNLABELLED):
        rest = rest.removeprefix(f"{kind}_")
    begins = next((split for split in ("train", "val", "test") if rest.startswith(split)), None)
    return split_named(rest) or begins or split_in(rest)


def _recognises(place: Path) -> bool:
    return any(_files(place, "boxes").values())


def _find(place: Path, split: str, images: Path | None, task: str) -> Files:
    """Of two annotation files, `keypoints` prefers person_keypoints_*.json, others instances_*.json."""
    found = _files(place, task)
    if split == "test" and "test" not in found:
        found |= {"test": sorted((place / "annotations").glob(f"{UNLABELLED}_test*.json"))}
    own = own_split(split, [each for each in found if found[each]], place, f"annotations/instances_{split}*.json")
    files = found[own.split]
    if len(files) > 1:
        names = ", ".join(each.name for each in files)
        raise DataError(
            f"{place / 'annotations'}: several files for {split}: {names}",
            f"choose with --{split}-json" if split != "test" else "take the others away",
            code="annotation-file-ambiguous",
        )
    (file,) = files
    folder, notes = (images, ()) if images else image_folder(place, file, own.split, f"--{split}-images")
    return part_of(Files(file, folder, f"COCO folder ({file.name})", notes, place), own, split)


def _files(folder: Path, task: str) -> dict[str, list[Path]]:
    """Annotation files by split, of the kind that the task prefers."""
    kinds = KINDS[::-1] if task == "keypoints" else KINDS
    found: dict[str, list[Path]] = {}
    every = sorted((folder / "annotations").glob("*.json"))
    for kind in kinds:
        of = [(split, each) for each in every if each.name.startswith(f"{kind}_") and (split := split_of(each))]
        for split in {split for split, _ in of} - found.keys():
            found[split] = [each for other, each in of if other == split]
    return found


LAYOUT = Layout("annotations/instances_{split}*.json", _recognises, _find)
