"""benchmarks/bootstrap.py: draws by hand, and what must come out of models that are equal or of one image."""

from typing import Any

import pytest
from support.scripts import script

from msad_cli.evaluation.metrics import score


@pytest.fixture
def boot(monkeypatch: pytest.MonkeyPatch) -> Any:
    return script(monkeypatch, "benchmarks/bootstrap.py")


def boxes(places: list[tuple[int, float]]) -> list[dict[str, Any]]:
    """A box of 20 × 20 pixels in each image at the given x."""
    return [{"image_id": image, "category_id": 1, "bbox": [x, 5.0, 20.0, 20.0]} for image, x in places]


TRUTH = {
    "images": [{"id": each, "width": 99, "height": 99} for each in (7, 8)],
    "categories": [{"id": 1, "name": "thing"}],
    "annotations": [
        {**each, "id": number, "area": 400.0, "iscrowd": 0}
        for number, each in enumerate(boxes([(7, 5.0), (8, 5.0)]), 1)
    ],
}
RIGHT = [{**each, "score": 0.9} for each in boxes([(7, 5.0), (8, 5.0)])]
HALF = [{**each, "score": 0.9} for each in boxes([(7, 5.0), (8, 60.0)])]
"""Found in image 7, missed in 8."""


def test_an_image_that_is_drawn_twice_counts_twice(boot: Any) -> None:
    document = boot.redrawn(TRUTH["images"], boot.by_image(TRUTH["annotations"]), [8, 8, 7])
    assert [each["id"] for each in document["images"]] == [1, 2, 3]
    assert [(each["id"], each["image_id"]) for each in document["annotations"]] == [(1, 1), (2, 2), (3, 3)]
    assert [(each["image_id"], each["bbox"][0]) for each in boot.renamed(boot.by_image(HALF), [8, 8, 7])] == [
        (1, 60.0),
        (2, 60.0),
        (3, 5.0),
    ]


def test_every_image_once_is_the_split_itself(boot: Any) -> None:
    again = {**TRUTH, **boot.redrawn(TRUTH["images"], boot.by_image(TRUTH["annotations"]), [7, 8])}
    assert score(again, boot.renamed(boot.by_image(HALF), [7, 8])).numbers == pytest.approx(
        score(TRUTH, HALF).numbers, nan_ok=True
    )


def test_the_spread_is_that_of_the_draws(boot: Any) -> None:
    """Of two images, one found: both draws of it give AP 1, both of the other 0, one of each AP at recall one half.

    With one right and one wrong box of equal scores, COCO's 101 points of recall have precision 1 up to 0.5: 51 / 101.
    Where the wrong box comes first, that precision is 1/2.
    """
    drawn = boot.bootstrap(TRUTH, {"right": RIGHT, "half": HALF}, "boxes", "AP", 40)
    assert set(drawn["right"]) == {1.0}
    found = {round(each, 6) for each in drawn["half"]}
    assert {0.0, 1.0} < found <= {0.0, 1.0, round(51 / 101, 6), round(51 / 101 / 2, 6)}
