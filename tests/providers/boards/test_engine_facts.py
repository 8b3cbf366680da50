"""What a board makes of an engine's own totals."""

from typing import Any

import msgspec
import pytest

from providers.boards import engine_facts
from providers.boards.shapes import Energy
from providers.models import Worker


def worker(
    totals: dict[str, Any], *, engine: dict[str, Any] | None = None, **calibration: Any
) -> Worker:
    return Worker(
        totals=totals,
        engine=engine or {},
        calibration=calibration,
        usd_per_hour_pico=360_000_000_000,
        usd_per_hour_source="entered",
    )


def test_an_hour_is_divided_by_what_came_of_it() -> None:
    # given: half an hour up, a quarter of it busy, three quarters of that for output
    fact = engine_facts.hourly(
        worker(
            {
                "uptime_s": 1800.0,
                "input_seconds": 112.5,
                "output_seconds": 337.5,
                "output_tokens": 27_000.0,
            }
        )
    )

    # then: $0.18 * 3/4 over 27,000 tokens
    assert fact is not None
    assert fact.actual_output_pico == 5_000_000
    assert fact.utilisation == 0.25


@pytest.mark.parametrize(
    ("totals", "fact"),
    [
        ({}, None),
        ({"audits_same": 0.0}, None),
        ({"audits_same": 40.0}, {"answers": 40, "ties": 0, "different": 0}),
        (
            {"audits_same": 40.0, "audits_tie": 2.0, "audits_different": 1.0},
            {"answers": 43, "ties": 2, "different": 1},
        ),
        ({"audits_same": "many", "audits_tie": True}, None),
    ],
)
def test_an_audit_is_its_count(totals: dict[str, Any], fact: dict[str, int] | None) -> None:
    assert msgspec.to_builtins(engine_facts.audit(worker(totals))) == fact


def test_energy_is_split_like_the_price() -> None:
    # given: two thirds of the engine's time made 1,000 tokens out of 300 J
    totals = {
        "joules": 300.0,
        "input_seconds": 10.0,
        "output_seconds": 20.0,
        "output_tokens": 1000.0,
    }
    measured = worker(
        totals, engine={"energy": "rapl"}, joules=50.0, input_time_share=0.5, output_tokens=500
    )

    # then
    assert engine_facts.energy(measured) == Energy(
        source="rapl", joules_per_m=200_000.0, joules_per_m_saturated=50_000.0
    )


@pytest.mark.parametrize("engine", [{}, {"energy": None}, {"energy": "unknown"}])
def test_without_a_counter_energy_is_unknown(engine: dict[str, Any]) -> None:
    totals = {"joules": 5.0, "input_seconds": 1.0, "output_seconds": 1.0, "output_tokens": 9.0}
    fact = engine_facts.energy(worker(totals, engine=engine))
    assert fact == Energy(source="unknown", joules_per_m=None, joules_per_m_saturated=None)


QUALITY = {
    "brittle": True,
    "worst_slice": "rare tokens",
    "measure": "perplexity",
    "loss_percent": 6.2,
    "disagreement_percent": 4.0,
    "sample": 16000,
}


def test_a_stated_quality_is_shown_with_its_worst_slice() -> None:
    stated = engine_facts.quality(worker({}, engine={"quality": QUALITY}))
    assert msgspec.to_builtins(stated) == QUALITY


@pytest.mark.parametrize(
    "stated",
    [
        None,
        "brittle",
        [],
        {},
        {name: value for name, value in QUALITY.items() if name != "loss_percent"},
        QUALITY | {"brittle": "no"},
        QUALITY | {"worst_slice": 7},
        QUALITY | {"sample": "many"},
    ],
)
def test_half_a_quality_is_none(stated: object) -> None:
    assert engine_facts.quality(worker({}, engine={"quality": stated})) is None


def test_no_worker_no_facts() -> None:
    facts = (
        engine_facts.hourly,
        engine_facts.audit,
        engine_facts.energy,
        engine_facts.quality,
    )
    assert [fact(None) for fact in facts] == [None] * 4
