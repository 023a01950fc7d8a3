"""The README's chart shows the numbers of docs/results.md, and nothing else."""

from typing import Any

import pytest
from support.scripts import script

PAGE = """
### RTMDet on blood cells

| model | AP | GMACs | ms |
|---|---|---|---|
| plain | 65.0 | 1 | 8.0 |
| plain, tight budget | 50.0 | 1 | 0.0 |
| YOLO11n, trained at 192 | 53.0 | 1 | 2.0 |
| aligned alone, tight budget | 62.0 | 1 | 6.0 |
| **distilled** | **57.5** | 1 | 4.0 |

## Another set

| model | ms |
|---|---|
| aligned teacher | 1.0 |
"""


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """docs/make_chart.py."""
    return script(monkeypatch, "docs/make_chart.py")


def test_the_chart_is_that_of_the_tables(maker: Any) -> None:
    assert maker.CHART.read_text() == maker.chart(maker.PAGE.read_text()), "python docs/make_chart.py draws it"


def test_a_mark_lies_where_its_row_says(maker: Any) -> None:
    """The ends of both axes are those of the drawing's area; 4 ms and 57.5 AP are their middles."""
    places = {each.ap: (maker.across(each.ms), maker.down(each.ap)) for each in maker.marks_of(PAGE)}
    quarters = {53.0: (159, 288), 62.0: (361, 126)}  # 2 and 6 ms, a fifth and four fifths of the way from 50 to 65 AP
    assert places == {50.0: (58, 342), 65.0: (462, 72), 57.5: (260, 207)} | quarters


def test_a_row_that_is_gone_is_named(maker: Any) -> None:
    with pytest.raises(ValueError, match="no 'ms' of 'aligned teacher' under '### RTMDet"):
        maker.cell(PAGE, maker.TABLE, "aligned teacher", "ms")
    with pytest.raises(ValueError, match="no '## Nuclei'"):
        maker.cell(PAGE, "## Nuclei", "aligned teacher", "ms")
