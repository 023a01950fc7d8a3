"""Epochs by the time that there is."""

import pytest

from msad_cli.errors import UsageError
from msad_cli.fitting.scheduling import Speed, fit_epochs, refused_if_longer

STUDENT, CONTROL, TEACHER = Speed(40, 2.0), Speed(40, 3.0), Speed(40, 10.0)


def test_a_student_alone_has_the_epochs_of_both_trainings_and_the_plain_detector_as_many() -> None:
    """80 epochs at 2 + 3 s."""
    found = fit_epochs(STUDENT, CONTROL, 10_000)
    assert (found.teacher, found.student, found.control, found.seconds, found.share) == (0, 80, 80, 400.0, 1.0)


def test_with_a_teacher_both_have_the_usual_epochs() -> None:
    """40 at 10 s, 40 at 2 s and 80 at 3 s."""
    found = fit_epochs(STUDENT, CONTROL, 10_000, TEACHER)
    assert (found.teacher, found.student, found.control, found.seconds) == (40, 40, 80, 720.0)


def test_less_time_takes_the_same_share_of_all() -> None:
    """Of 0.9 × 200 s, 180: 0.45 of 400."""
    found = fit_epochs(STUDENT, CONTROL, 200)
    assert found.share == pytest.approx(0.45)
    assert (found.student, found.control, found.seconds) == (36, 36, 180.0)
    without = fit_epochs(STUDENT, None, 100)
    assert (without.student, without.control, without.seconds) == (45, 0, 90.0)


def test_epochs_of_a_teacher_that_were_typed_stay() -> None:
    """100 epochs at 10 s; of 0.9 × 1200 s are left 80 for 40 × 2 s and 140 × 3 s: 0.16."""
    found = fit_epochs(STUDENT, CONTROL, 1200, TEACHER, 100)
    assert found.share == pytest.approx(0.16)
    assert (found.teacher, found.student, found.control) == (100, 6, 22)


def test_a_time_that_holds_no_epoch_is_refused() -> None:
    with pytest.raises(UsageError, match="too short"):
        refused_if_longer(fit_epochs(STUDENT, CONTROL, 3), 3)
    assert refused_if_longer(fit_epochs(STUDENT, CONTROL, 6), 6).student == 1
