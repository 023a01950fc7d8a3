"""What the user decides of a set whose files leave it open: crowd regions that are objects, names that are one class.

The answer is another annotation file in the cache, so that all who read the set read the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from msad_cli.data.agreement.category_names import plain_name
from msad_cli.data.annotations.records import read_document
from msad_cli.data.annotations.values import read_flag, whole_number
from msad_cli.data.layouts.base import Files
from msad_cli.data.layouts.cache import Converted, cached

Document = dict[str, Any]
Key = int | str


@dataclass(frozen=True)
class Decisions:
    """What was decided.

    Attributes:
        crowd_as_objects: annotations with `iscrowd` are objects; those that are marked `ignore` or that VOC calls
            difficult stay left out.
        join_classes: classes whose names differ only in case and blanks are one, with the id and the name of the first.
        classes: (id, name) of a model, whose ids such classes get; none where the set itself decides.
    """

    crowd_as_objects: bool = False
    join_classes: bool = False
    classes: Sequence[tuple[int, str]] = ()


def decided(found: Mapping[str, Files], decisions: Decisions) -> dict[str, Files]:
    """The splits of a set, by name, as was decided.

    Raises:
        DataError: an annotation file cannot be read.
    """
    if not decisions.crowd_as_objects and not decisions.join_classes:
        return dict(found)
    files = [each.annotations for each in found.values()]
    answers = {}
    for name, each in found.items():
        word = f"decided-{name}-{int(decisions.crowd_as_objects)}{int(decisions.join_classes)}{decisions.classes or ''}"
        file, notes = cached(word[:40], files, partial(_decide, each.annotations, files, decisions))
        answers[name] = replace(each, annotations=file, notes=(*each.notes, *(f"{name}: {note}" for note in notes)))
    return answers


def _decide(own: Path, files: Sequence[Path], decisions: Decisions) -> Converted:
    document = read_document(own)
    notes = []
    if decisions.crowd_as_objects:
        document, count = _without_crowds(document)
        notes.append(f"{count} crowd regions are read as objects (--crowd-as-objects)")
    if decisions.join_classes:
        first = {plain_name(name): (number, name) for number, name in reversed(decisions.classes)}
        for file in files:
            for each in _named(document if file == own else read_document(file)):
                first.setdefault(plain_name(str(each["name"])), (each["id"], str(each["name"]).strip()))
        document, words = _joined(document, first)
        notes.append(f"{words} (--join-classes)")
    return Converted(document, tuple(notes))


def _without_crowds(document: Document) -> tuple[Document, int]:
    def is_crowd(each: Any) -> bool:
        return isinstance(each, dict) and bool(read_flag(each.get("iscrowd"))) and not read_flag(each.get("difficult"))

    annotations = [{**each, "iscrowd": 0} if is_crowd(each) else each for each in document["annotations"]]
    return {**document, "annotations": annotations}, sum(map(is_crowd, document["annotations"]))


def _named(document: Document) -> list[Document]:
    named = [each for each in document["categories"] if isinstance(each, dict) and _key(each.get("id")) is not None]
    return [each for each in named if isinstance(each.get("name"), str | int)]


def _key(value: object) -> Key | None:
    number = whole_number(value)
    return number if number is not None or not isinstance(value, str) else value


def _joined(document: Document, first: Mapping[str, tuple[Any, str]]) -> tuple[Document, str]:
    """A document with one category for names that are alike, and which these are."""
    target = {_key(each["id"]): first[plain_name(str(each["name"]))] for each in _named(document)}
    names = {_key(each["id"]): str(each["name"]) for each in _named(document)}
    categories: dict[Key | None, Document] = {}
    for each in _named(document):
        number, name = target[_key(each["id"])]
        categories.setdefault(_key(number), {**each, "id": number, "name": name})
    annotations = [
        {**each, "category_id": target[key][0]}
        if isinstance(each, dict) and (key := _key(each.get("category_id"))) in target and _key(target[key][0]) != key
        else each
        for each in document["annotations"]
    ]
    moved = [f"{name!r} is read as {target[key][1]!r}" for key, name in names.items() if _key(target[key][0]) != key]
    words = ", ".join(moved) if moved else "no two names of classes are alike"
    return {**document, "categories": list(categories.values()), "annotations": annotations}, words
