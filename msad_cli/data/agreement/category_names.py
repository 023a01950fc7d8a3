"""Classes of one name under different ids: a YOLO copy of a COCO set counts from 0."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.problem_tally import Tally
from msad_cli.data.annotations.values import whole_number


def plain_name(name: str) -> str:
    """A name without what people type now so, now otherwise: case and blanks."""
    return " ".join(name.split()).casefold()


def same_name(one: str, other: str) -> bool:
    """Whether two names of a category differ at most in case and blanks."""
    return plain_name(one) == plain_name(other)


def with_known_ids(
    document: dict[str, Any], known: Sequence[tuple[int, str]], roots: Collection[int], tally: Tally
) -> dict[str, Any]:
    """A COCO document whose categories have the ids that classes of these names have elsewhere.

    Nothing is changed where ids agree, or where a name is not known or is that of several: which class is meant is not
    guessed.

    Args:
        known: id and name of the classes of a model, or of the training split.
        roots: categories that are groups of others and no classes; they are left out where ids change.
    """
    own = {
        number: str(each["name"])
        for each in document["categories"]
        if isinstance(each, dict) and isinstance(each.get("name"), str | int)
        if (number := whole_number(each.get("id"))) is not None and number not in roots
    }
    ids = _ids_by_name(own, known)
    if ids is None or all(here == there for here, there in ids.items()):
        return document
    for here, there in ids.items():
        if here != there:
            tally.add(kinds.CLASSES_BY_NAME, "{!r} is category {} here, {} where it was learnt", own[here], here, there)
    return {
        **document,
        "categories": [
            _moved(each, "id", ids)
            for each in document["categories"]
            if not isinstance(each, dict) or whole_number(each.get("id")) not in roots
        ],
        "annotations": [_moved(each, "category_id", ids) for each in document["annotations"]],
    }


def _ids_by_name(own: Mapping[int, str], known: Sequence[tuple[int, str]]) -> dict[int, int] | None:
    """The known id of each category, by its exact name, or by its plain one if all have such; None if any has none."""
    for spelt in (str, plain_name):
        there = {spelt(name): number for number, name in known}
        here = {number: spelt(name) for number, name in own.items()}
        unique = len(there) == len(known) and len(set(here.values())) == len(here)
        if unique and set(here.values()) <= there.keys():
            return {number: there[name] for number, name in here.items()}
    return None


def _moved(record: Any, field: str, ids: Mapping[int, int]) -> Any:
    number = whole_number(record.get(field)) if isinstance(record, dict) else None
    return {**record, field: ids[number]} if number is not None and number in ids else record
