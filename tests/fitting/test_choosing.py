"""Which candidate is taken: by latencies that are given, with few of them measured."""

import math
from dataclasses import replace

import pytest
from support.fitting import Given, facts, measured

from msad_cli.errors import UsageError
from msad_cli.fitting.choice.budgets import Budget, parse_budget
from msad_cli.fitting.choice.candidates import (
    NETWORKS,
    PLAIN,
    Candidate,
    Network,
    candidates_for,
    chosen_networks,
    sizes_for,
)
from msad_cli.fitting.choice.choosing import MOST_MEASURED, Choice, choose_candidate, reason
from msad_cli.fitting.choice.evidence import AP_OF_K, choose_teaching, may_teach, points, strength
from msad_cli.frame import DIVISOR, Frame
from msad_cli.models.cost import count_cost

SET = facts()
FEW = [each for each in NETWORKS if (each.backbone, each.width) in {("resnet18", 0.5), ("cspnext_nano", 1.0)}]
"""Counting multiply-accumulates of large networks takes seconds."""
CANDIDATES = candidates_for(SET, FEW, (2, 4))


@pytest.mark.parametrize(
    ("text", "kind", "most"),
    [
        ("15ms", "latency", 15.0),
        (" 15 ", "latency", 15.0),
        ("0.5s", "latency", 500.0),
        ("40 fps", "latency", 25.0),
        ("0.5GMACs", "macs", 0.5e9),
        ("1GFLOPs", "macs", 0.5e9),
        ("5MB", "size", 5e6),
        ("5 MiB", "size", 5 * 2**20),
    ],
)
def test_budgets_as_they_are_typed(text: str, kind: str, most: float) -> None:
    found = parse_budget(text)
    assert found.kind == kind
    assert found.most == pytest.approx(most)
    assert found.text.strip()[-1].isalpha(), "a unit is said"


@pytest.mark.parametrize("text", ["", "fast", "0ms", "-3ms", "15 parsecs", "15ms30", "1e3ms", "nan"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a budget"):
        parse_budget(text)


def taken(budget: str, given: Given | None = None, among: list[Candidate] = CANDIDATES) -> tuple[Choice, Given]:
    measure = given or Given()
    choice = choose_candidate(among, parse_budget(budget), lambda each: strength(each, SET), measure, {})
    return choice, measure


@pytest.mark.parametrize("budget", ["6ms", "10ms", "16ms", "33ms", "60fps"])
def test_the_strongest_that_fits_is_taken_although_few_are_measured(budget: str) -> None:
    """Beside what measuring all of them would have given."""
    choice, given = taken(budget)
    planned = parse_budget(budget).planned
    fitting = [each for each in CANDIDATES if Given().latency(each) <= planned]
    best = max(fitting, key=lambda each: (strength(each, SET), -each.macs))
    assert choice.chosen == best
    assert len(given.asked) <= MOST_MEASURED < len(CANDIDATES)
    assert len(set(given.asked)) == len(given.asked)


def test_a_machine_that_is_another_than_expected_is_found_out() -> None:
    """A hundred times faster: the strongest of all fits."""
    choice, given = taken("15ms", Given(per_gmac=0.2, fixed=0.1))
    assert choice.chosen == max(CANDIDATES, key=lambda each: strength(each, SET))
    assert len(given.asked) <= MOST_MEASURED


def test_a_budget_that_nothing_meets_names_the_nearest() -> None:
    choice, given = taken("1ms")
    cheapest = min(CANDIDATES, key=lambda each: each.macs)
    assert choice.chosen is None
    assert choice.nearest == cheapest
    assert cheapest.name in given.asked
    assert reason(cheapest, choice, parse_budget("1ms")) == "over the budget, the nearest"


def test_multiply_accumulates_are_known_without_a_measurement() -> None:
    choice, given = taken("0.5GMACs")
    best = max((each for each in CANDIDATES if each.macs <= 0.5e9), key=lambda each: strength(each, SET))
    assert choice.chosen == best
    assert given.asked == []


def test_a_size_is_that_of_the_file() -> None:
    """8 MB hold RTMDet's 1.64 million parameters and the graph beside them, 7 MB do not, nor does either FCOS."""
    choice, _ = taken("8MB")
    assert choice.chosen is not None
    assert choice.chosen.network.detector == "rtmdet"
    assert choice.measured[choice.chosen.name].size <= 8e6
    # At one size of file it is the largest image.
    assert choice.chosen.spec.resolution.short_side == 480
    choice, _ = taken("6MB")
    assert choice.chosen is None


def test_what_was_measured_before_is_not_measured_again() -> None:
    first, given = taken("16ms")
    again = Given()
    second = choose_candidate(CANDIDATES, parse_budget("16ms"), lambda each: strength(each, SET), again, first.measured)
    assert given.asked
    assert again.asked == []
    assert second.chosen == first.chosen


def test_a_part_of_a_latency_is_kept_free() -> None:
    """A candidate of 9.6 ms is not taken for 10."""
    one = CANDIDATES[0]
    choice = choose_candidate([one], parse_budget("10ms"), lambda _: 0.0, lambda _: measured(9.6), {})
    assert choice.chosen is None
    assert reason(one, choice, parse_budget("10ms")).startswith("over the 9.2 ms planned")
    choice = choose_candidate([one], parse_budget("10ms"), lambda _: 0.0, lambda _: measured(9.1), {})
    assert reason(one, choice, parse_budget("10ms")) == "the strongest that fits"
    assert Budget("macs", 1e9, "1GMACs").planned == 1e9


def test_sizes_are_the_largest_of_their_cost_and_never_above_the_images_own() -> None:
    sizes = sizes_for(SET)
    padded = [Frame.around([each.frame_size(480, 640)], divisor=DIVISOR).padded for each in sizes]
    assert len(set(padded)) == len(padded)
    assert [each.short_side for each in sizes] == sorted(each.short_side for each in sizes)
    assert sizes[-1].short_side == 480
    for size, whole in zip(sizes[:-1], padded, strict=False):
        larger = Frame.around([SET.resolution(size.short_side + 4).frame_size(480, 640)], divisor=DIVISOR).padded
        assert larger != whole
    # By hand: 4:3 images fill 32 × n pixels of the long side, or of the short one.
    assert [(each.short_side, each.long_side) for each in sizes[:4]] == [(64, 84), (72, 96), (96, 128), (120, 160)]


def test_an_image_smaller_than_any_size_is_taken_as_it_is() -> None:
    assert [each.short_side for each in sizes_for(facts(size=(40, 60)))] == [40]


def test_costs_are_those_that_counting_gives() -> None:
    """Of the usual image where graphs have fixed sides, else the mean of the set's own: one in four stands upright."""
    sizes = [*3 * [(480, 640)], (640, 480)]
    mixed = replace(SET, alike=False, images=sizes)
    for each, free in zip(CANDIDATES, candidates_for(mixed, FEW, (2, 4)), strict=True):
        own = each.spec.resolution
        frame = own.frame_size(*SET.size)
        cost = count_cost(each.spec, "low", [frame])
        assert each.macs == cost.total
        assert free.macs == pytest.approx(count_cost(free.spec, "low", [own.frame_size(*of) for of in sizes]).total)
        assert each.parameters == sum(cost.parameters.values())
        assert each.sees == tuple(side // each.k for side in frame)


def test_plain_candidates_are_ordinary_detectors_and_cost_less_at_the_size_that_they_see() -> None:
    plain = candidates_for(SET, FEW[:1], (PLAIN,))
    assert {(each.spec.role, each.spec.scales, each.k) for each in plain} == {("baseline", "single", 1)}
    low = next(each for each in CANDIDATES if each.k == 2 and each.sees == (144, 192) and each.network == FEW[0])
    same = next(each for each in plain if each.sees == (144, 192))
    assert same.macs < 0.7 * low.macs


def test_networks_are_those_that_were_asked_for() -> None:
    assert {each.detector for each in chosen_networks("rtmdet", None, None)} == {"rtmdet"}
    assert {each.backbone for each in chosen_networks(None, "mobilenet_v2", None)} == {"mobilenet_v2"}
    assert chosen_networks("fcos", "resnet34", None) == [Network("fcos", "resnet34", 1.0, 64, 2)]
    started = {(each.backbone, each.width): each.init for each in chosen_networks(None, None, "imagenet")}
    assert started["resnet18", 1.0] == "imagenet"
    assert started["resnet18", 0.5] == started["cspnext_nano", 1.0] == "none"
    with pytest.raises(UsageError, match="maskrcnn"):
        chosen_networks("maskrcnn", None, None)


def test_strength_is_what_was_measured() -> None:
    """The student of docs/results-paper.md is the measure of all, and twice the sides of its image half of that."""

    def of(short: int, **changes: object) -> Candidate:
        wanted = {"backbone": "resnet18", "k": 2, "depthwise": False, "channels": 64, **changes}
        return next(
            each
            for each in CANDIDATES
            if (each.network.backbone, each.k, each.network.head_depthwise, each.network.head_channels)
            == tuple(wanted.values())
            and each.spec.resolution.short_side == short
        )

    own = points(of(256), SET)
    assert sum(own.values()) == pytest.approx(0.0, abs=0.1)
    assert strength(of(256), SET) - strength(of(128), SET) == pytest.approx(11.0, abs=0.1)
    plain = {each.sees[0]: points(each, SET)["size"] for each in candidates_for(SET, FEW[:1], (PLAIN,))}
    assert plain[256] - plain[128] == pytest.approx(5.9, abs=0.1)
    assert strength(of(256, k=4), SET) == pytest.approx(AP_OF_K[4], abs=0.1)
    assert points(of(256, depthwise=True), SET)["head"] == -2.8
    usual, narrow = (of(256, backbone="cspnext_nano", channels=channels) for channels in (64, 32))
    assert strength(usual, SET) > strength(of(256), SET)
    assert points(narrow, SET)["head"] - points(usual, SET)["head"] == -1.4
    # Larger objects gain less by larger images.
    large = facts(side=0.6)
    assert 0 < strength(of(480), large) - strength(of(256), large) < 3


def test_what_twice_the_cost_brings_grows_with_the_set() -> None:
    few, many = (points(CANDIDATES[0], facts(images=count))["network"] for count in (292, 100_000))
    assert abs(many) > 5 * abs(few) > 0
    assert math.isfinite(points(CANDIDATES[0], facts(images=1))["network"])


@pytest.mark.parametrize(
    ("asked", "detector", "k", "fits", "wanted"),
    [
        ("auto", "fcos", 2, True, False),
        ("auto", "rtmdet", 2, True, False),
        ("yes", "rtmdet", 2, True, True),
        ("auto", "fcos", 4, True, True),
        ("auto", "rtmdet", 4, True, True),
        ("auto", "fcos", 4, False, False),
        ("yes", "fcos", 2, False, True),
        ("no", "rtmdet", 4, True, False),
    ],
)
def test_a_teacher_is_trained_where_it_pays(asked: str, detector: str, k: int, fits: bool, wanted: bool) -> None:
    student = next(each for each in CANDIDATES if (each.network.detector, each.k) == (detector, k))
    assert may_teach(asked, student) or not wanted
    found = choose_teaching(asked, student, fits)
    assert found.wanted == wanted
    assert found.why
