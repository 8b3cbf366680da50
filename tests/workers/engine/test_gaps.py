import msgspec
import pytest

from workers.engine.gaps import KEPT, Gap, GapFigures, Gaps


def test_gaps_are_told_apart_by_the_seats_that_are_taken():
    # given
    gaps = Gaps()

    # when
    for tenths in range(1, 101):
        gaps.observe(tenths / 1e4, running=1, seats=4)
    gaps.observe(0.2, running=4, seats=4)
    gaps.observe(9.0, running=2, seats=4)

    # then
    assert gaps.figures() == GapFigures(alone=Gap(9.6, 100), full=Gap(200.0, 1))


@pytest.mark.parametrize("seats", [1, 16])
def test_what_was_never_seen_has_no_figure(seats: int):
    # given
    gaps = Gaps()

    # when
    gaps.observe(0.1, running=1, seats=seats)

    # then: a house of one seat is full with one stream
    seen = {"full" if seats == 1 else "alone": {"p95_ms": 100.0, "n": 1}}
    assert msgspec.to_builtins(gaps.figures()) == seen


def test_only_the_last_ones_are_kept():
    # given
    gaps = Gaps()

    # when
    for _ in range(KEPT):
        gaps.observe(5.0, running=1, seats=4)
    for _ in range(KEPT):
        gaps.observe(0.001, running=1, seats=4)

    # then
    assert gaps.figures() == GapFigures(alone=Gap(1.0, KEPT))
