"""The README's chart shows the numbers of docs/results.md, and nothing else."""

from typing import Any

import pytest
from support.scripts import script

PAGE = """
### RTMDet on blood cells

| model | AP | GMACs | ms |
|---|---|---|---|
| plain | 55.0 | 1 | 0.0 |
| plain, the large image | 65.0 | 1 | 12.0 |
| YOLO11n, trained at 192 | 57.0 | 1 | 3.0 |
| **aligned alone** | **60.0** | 1 | 6.0 |

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
    """The ends of both axes are those of the drawing's area; 6 ms and 60 AP are their middles."""
    places = {each.ap: (maker.across(each.ms), maker.down(each.ap)) for each in maker.marks_of(PAGE)}
    quarter = {57.0: (159, 288)}  # 3 ms, a fifth of the way from 55 to 65 AP
    assert places == {55.0: (58, 342), 65.0: (462, 72), 60.0: (260, 207)} | quarter


def test_a_row_that_is_gone_is_named(maker: Any) -> None:
    with pytest.raises(ValueError, match="no 'ms' of 'aligned teacher' under '### RTMDet"):
        maker.cell(PAGE, maker.TABLE, "aligned teacher", "ms")
    with pytest.raises(ValueError, match="no '## Nuclei'"):
        maker.cell(PAGE, "## Nuclei", "aligned teacher", "ms")
