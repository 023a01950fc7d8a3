"""Kinds of problems: codes for programs, words for people, and the page that lists both."""

import re
from pathlib import Path
from typing import Any

from msad_cli.data.annotations.problem_tally import Problem, Tally
from msad_cli.data.annotations.problems import BEYOND_REPAIR, KINDS, NO_SIZE, SMALL

PAGE = Path(__file__).parents[2] / "docs" / "messages.md"
HEAD = "| what is wrong | code | what msad does | what to do |\n|---|---|---|---|\n"


def row(kind: Problem) -> str:
    return f"| {kind.what} | `{kind.code}` | {kind.outcome} | {kind.advice} |\n"


def test_codes_are_words_in_lower_case_and_differ() -> None:
    codes = [kind.code for kind in KINDS]
    assert len(codes) == len(set(codes)) > 40
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", code) for code in codes)
    assert set(codes) >= BEYOND_REPAIR


def test_the_page_of_messages_lists_every_kind_as_it_is() -> None:
    """Where it differs, what is expected here is what the page has to hold."""
    ordered = sorted(KINDS, key=lambda kind: not kind.fatal)
    assert HEAD + "".join(map(row, ordered)) in PAGE.read_text()


def test_a_tally_takes_over_what_another_one_met_and_nothing_else() -> None:
    tally = Tally()
    tally.add(SMALL, "{}", 1)
    other = Tally()
    other.add(SMALL, "{}", 2)
    other.add_known(tally.to_plain(), KINDS)
    assert [(each.count, each.examples) for each in other.problems()] == [(2, ("2", "1"))]
    known = other.problems()
    odd: list[Any] = [None, [], 3, {"": 1}, {SMALL.code: {"count": "1"}}, {"odd": {"count": 1, "examples": []}}]
    for each in odd:
        other.add_known(each, KINDS)
    assert other.problems() == known
    other.add_known({SMALL.code: {"count": 1, "examples": 7}}, KINDS)
    assert other.problems()[0].count == 3


def test_a_tally_counts_by_code_whatever_is_said_of_a_kind() -> None:
    tally = Tally()
    tally.add(SMALL, "{}", 1)
    tally.add(NO_SIZE, "{}", "a")
    tally.add(Problem(SMALL.code, "other words", "kept"), "{}", 2)
    small, size = tally.problems()
    assert (small.code, small.what, small.count, small.examples) == (SMALL.code, SMALL.what, 2, ("1", "2"))
    assert (size.code, size.count) == (NO_SIZE.code, 1)
