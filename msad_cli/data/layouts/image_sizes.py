"""How large the validation images of a set are, as its annotation file states it."""

from functools import lru_cache

from msad_cli.errors import DataError, UsageError


def image_sizes_of(data: str) -> list[tuple[int, int]]:
    """`image_sizes` of the set that a model remembers; empty where it is not here, or states none."""
    try:
        return image_sizes(data) if data else []
    except (UsageError, DataError):
        return []


@lru_cache(maxsize=8)
def image_sizes(data: str) -> list[tuple[int, int]]:
    """(height, width) of every validation image that the annotation file of a set states.

    Raises:
        UsageError: it states none.
    """
    from msad_cli.data.annotations.records import read_records
    from msad_cli.data.layouts.splits import find_split

    files = find_split(data, "val")
    stated = read_records(files.annotations, files.images, root=files.root).sizes.tolist()
    sizes = [(height, width) for height, width in stated if height and width]
    if not sizes:
        raise UsageError(
            f"{files.annotations}: its images state no width and height",
            "give --size instead of --data",
            code="image-sizes-not-stated",
        )
    return sizes
