"""Cancelled, cut, uncounted and held: what is charged, against what a foreign tokenizer counted."""

import statistics
from itertools import count

import pytest

from bench.charges import rounds
from bench.charges.rounds import Row
from gateway.estimates.ratios import Ratios


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    ticks = count(step=10)
    return list(rounds.charged(Ratios(lambda: float(next(ticks)))))


def test_the_median_request_is_charged_within_five_percent(rows: list[Row]) -> None:
    first = [row for row in rows if row.is_first_call]

    assert (len(rows), len(first)) == (500, 167)
    assert statistics.median(abs(row.off) for row in rows) < 0.05
    assert statistics.median(abs(row.off) for row in first) < 0.05


def test_all_together_are_charged_what_they_used(rows: list[Row]) -> None:
    true, charged = sum(row.true_pico for row in rows), sum(row.charged_pico for row in rows)

    assert charged == pytest.approx(true, rel=0.03)


@pytest.mark.parametrize("kind", ["prose", "code", "cjk", "json"])
def test_no_kind_of_text_is_charged_another_s_ratio(rows: list[Row], kind: str) -> None:
    own = [row for row in rows if row.kind == kind]

    assert statistics.median(abs(row.off) for row in own) < 0.1
    assert sum(row.charged_pico for row in own) == pytest.approx(
        sum(row.true_pico for row in own), rel=0.1
    )


def test_nobody_is_charged_more_than_was_held(rows: list[Row]) -> None:
    assert all(row.charged_pico <= row.hold_pico for row in rows)
