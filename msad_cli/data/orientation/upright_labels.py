"""Tells whether labels were made on images as EXIF turns them, and turns those that were not."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msad_cli import __version__
from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.problem_tally import MET, Tally
from msad_cli.data.annotations.records import Records, examine, read_document
from msad_cli.data.annotations.values import shown, whole_number
from msad_cli.data.images.decode import QUARTER_TURNS
from msad_cli.data.images.split_images import SplitImages, look_at_images
from msad_cli.data.layouts.base import Files
from msad_cli.data.layouts.cache import Converted, cached
from msad_cli.data.orientation.turned_labels import Turn
from msad_cli.errors import MsadError, UsageError
from msad_cli.system.cache_folder import cache_folder, file_state, keep_text

WAYS = ("auto", "keep", "ignore")
"""What `--exif` takes: labels fit upright images where sizes do not say otherwise, always, or never."""
AS_WIDE = 0.02
"""Share by which the ratio of two sides differs between images of one shape: sides are rounded."""
OVER = 1.0
"""Pixels by which a box may stick out of the image that it was drawn in."""


def parse_exif(way: str) -> None:
    """Does nothing for a way that there is.

    Raises:
        UsageError: there is none of this name.
    """
    if way not in WAYS:
        raise UsageError(f"--exif {way}: unknown", f"give {', '.join(WAYS)}", code="unknown-value")


@dataclass(frozen=True)
class Evidence:
    """Of the I images of a split, which EXIF turns, and what is known of the labels of these.

    Attributes:
        turned: (I,) EXIF turns them.
        unturned, upright: (I,) their labels were made on the image as the file has it, or on the upright one.
    """

    turned: NDArray[np.bool_]
    unturned: NDArray[np.bool_]
    upright: NDArray[np.bool_]

    @property
    def fit(self) -> bool:
        """Whether all that is told says that labels were made on upright images."""
        return bool(self.upright.any() and not self.unturned.any())

    @property
    def untold(self) -> NDArray[np.bool_]:
        """(I,) nothing tells."""
        return self.turned & ~self.unturned & ~self.upright


def upright(files: Files, way: str = "auto") -> Files:
    """A split whose labels are those of upright images; its annotation file says which were turned, or may have to be.

    Where nothing is to be turned and nothing to be said, these are the files as they are.

    Args:
        files: of the split.
        way: one of `WAYS`.

    Raises:
        UsageError: no such way.
    """
    parse_exif(way)
    if way == "keep":
        return files
    place = _known_at(files, way)
    if place is not None and (known := _recall(place)) is not None:
        return replace(files, annotations=Path(known)) if known else files
    try:
        document = read_document(files.annotations)
        records = examine(_by_rows(document), files.annotations, files.images, root=files.root)
    except MsadError:
        return files  # who reads them says what is wrong
    seen = look_at_images(records)
    evidence = evidence_of(records, seen, files.stated)
    turn = to_turn(evidence, way)
    warned = evidence.untold & ~turn & (way == "auto" and not evidence.fit)
    made = ""
    if turn.any() or warned.any():
        make = partial(_converted, document, records, seen, files, turn, warned)
        sources = [files.annotations, *seen.paths]
        annotations, _ = cached(f"upright-{files.annotations.stem}", sources, make, (way, files.stated))
        made = str(annotations)
    if place is not None:
        _keep(place, seen.paths, made)
    return replace(files, annotations=Path(made)) if made else files


def evidence_of(records: Records, seen: SplitImages, stated: bool) -> Evidence:
    """What stated sizes, and boxes where none are stated, say of images that EXIF turns.

    Args:
        stated: whether sizes are the set's own words; of shares, nobody says of which image.
    """
    turned = seen.orientations > 1
    none = np.zeros_like(turned)
    if not stated:
        return Evidence(turned, none, none)
    quarter = np.isin(seen.orientations, QUARTER_TURNS) & (seen.sizes[:, 0] != seen.sizes[:, 1])
    given, file = records.sizes, seen.sizes[:, ::-1]
    known = quarter & (given > 0).all(axis=1)
    exact = [known & (given == size).all(axis=1) for size in (file, seen.sizes)]
    with np.errstate(divide="ignore", invalid="ignore"):
        shape, own = given[:, 0] / given[:, 1], seen.sizes[:, 0] / seen.sizes[:, 1]
        # Of another size, but of one shape with the file's image, or with the upright one.
        alike = [known & (np.abs(shape * other - 1) < AS_WIDE) for other in (own, 1 / own)]
    either = alike[0] & alike[1]
    inside = _inside(records, [file, seen.sizes], quarter & ~known)
    return Evidence(
        turned,
        unturned=exact[0] | (~exact[1] & alike[0] & ~either) | (inside[0] & ~inside[1]),
        upright=exact[1] | (~exact[0] & alike[1] & ~either) | (inside[1] & ~inside[0]),
    )


def _inside(records: Records, sizes: Sequence[NDArray[np.int64]], asked: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """(I,) for each (I, 2) of sizes: all boxes of an image that is asked for lie within it, and there are some."""
    of = records.annotations
    rows = np.flatnonzero(asked[of.images] & np.isfinite(of.boxes).all(axis=1))
    images, ends = of.images[rows], (of.boxes[rows, :2] + of.boxes[rows, 2:])[:, ::-1]
    some = np.zeros_like(asked)
    some[images] = True
    found = []
    for size in sizes:
        within = some.copy()
        within[images[(ends > size[images] + OVER).any(axis=1)]] = False
        found.append(within)
    return found


def to_turn(evidence: Evidence, way: str) -> NDArray[np.bool_]:
    """(I,) whose labels are turned with the image.

    One tool wrote a file: where all that is told says that it did not look at EXIF, it did not elsewhere.
    """
    if way == "ignore":
        return evidence.turned
    alone = evidence.unturned.any() and not evidence.upright.any()
    return evidence.turned if alone else evidence.unturned


def _converted(
    document: dict[str, Any],
    records: Records,
    seen: SplitImages,
    files: Files,
    turn: NDArray[np.bool_],
    warned: NDArray[np.bool_],
) -> Converted:
    tally = Tally()
    tally.add_known(document.get(MET), kinds.KINDS)
    rows = (records.image_ids - 1).tolist()

    def words(i: int) -> str:
        each = document["images"][rows[i]]
        return f"image {shown(each.get('id'))} ({shown(each.get('file_name'))})"

    tally.add_all(kinds.LABELS_TURNED, np.flatnonzero(turn).tolist(), words)
    tally.add_all(kinds.LABELS_UNTOLD, np.flatnonzero(warned).tolist(), words)
    images: list[Any] = list(document["images"])
    turns: dict[object, Turn] = {}
    for i in np.flatnonzero(turn).tolist():
        own = images[rows[i]]
        turns[_key(_field(own, "id"))], (height, width) = _turn(records, seen, i, files.stated)
        images[rows[i]] = {**own, "height": height, "width": width}
    annotations = [
        each if (way := turns.get(_key(_field(each, "image_id")))) is None else way.annotation(each)
        for each in document["annotations"]
    ]
    return Converted({**document, "images": images, "annotations": annotations, MET: tally.to_plain()})


def _by_rows(document: dict[str, Any]) -> dict[str, Any]:
    """A document whose images are numbered from 1 in their order, whatever their ids are."""
    rows: dict[Any, int] = {}
    for row, each in enumerate(document["images"], start=1):
        rows.setdefault(_key(_field(each, "id")), row)
    images = [{**each, "id": row} if isinstance(each, dict) else each for row, each in enumerate(document["images"], 1)]
    annotations = [
        {**each, "image_id": rows.get(_key(each.get("image_id")))} if isinstance(each, dict) else each
        for each in document["annotations"]
    ]
    return {**document, "images": images, "annotations": annotations}


def _key(value: object) -> object:
    """What records refer to each other by: a whole number however it is written, else as it stands."""
    number = whole_number(value)
    return str(value) if number is None else number


def _field(record: Any, name: str) -> Any:
    return record.get(name) if isinstance(record, dict) else None


def _turn(records: Records, seen: SplitImages, i: int, stated: bool) -> tuple[Turn, tuple[int, int]]:
    """The way of an image's labels, and (height, width) of the upright image that they are of then."""
    orientation = int(seen.orientations[i])
    height, width = (int(side) for side in seen.sizes[i])
    quarter = orientation in QUARTER_TURNS
    own = (width, height) if quarter else (height, width)
    scale = (own[1] / width, own[0] / height) if not stated else (1.0, 1.0)
    given = records.sizes[i].tolist()
    if stated and all(given) and tuple(given) not in (own, (height, width)):
        # Labels of a smaller or larger copy, which stay of that.
        own = (given[0], given[1])
        height, width = own[::-1] if quarter else own
    return Turn(orientation, own, scale), (height, width)


def _known_at(files: Files, way: str) -> Path | None:
    """Where the answer for these files is kept; None where there is no cache."""
    with suppress(OSError):
        words = (str(files.annotations), file_state(files.annotations), str(files.images), str(files.root), way)
        digest = hashlib.blake2b(repr((__version__, words, files.stated)).encode(), digest_size=16).hexdigest()
        return cache_folder() / "exif" / f"{digest}.json"
    return None


def _recall(place: Path) -> str | None:
    """The made file, empty where none was made; None where an image or the answer is not as it was."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        kept = json.loads(place.read_bytes())
        made = str(kept["made"])
        if kept["images"] == _states(kept["paths"]) and (not made or Path(made).is_file()):
            return made
    return None


def _keep(place: Path, paths: Sequence[Path], made: str) -> None:
    names = [str(each) for each in paths]
    with suppress(MsadError):  # only time is lost
        keep_text(place, json.dumps({"paths": names, "images": _states(names), "made": made}))


def _states(paths: Sequence[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for each in paths:
        digest.update(repr(file_state(each)).encode())
    return digest.hexdigest()
