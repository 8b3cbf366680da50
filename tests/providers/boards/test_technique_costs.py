"""What an offer says of its techniques' costs, and where it has too little to say anything."""

from typing import Any

import msgspec
import pytest

from providers.boards import technique_costs
from providers.models import Worker

TOTALS = {
    "steps": 1000,
    "output_tokens": 1400,
    "input_seconds": 2.0,
    "output_seconds": 7.0,
    "audit_seconds": 1.0,
    "draft_seconds": 0.05,
    "dispatch_seconds": 2.5,
}
CALIBRATED = {
    "steps": 500,
    "output_tokens": 600,
    "busy_seconds": 8.0,
    "draft_seconds": 0.08,
    "dispatch_seconds": 0.8,
}
STATED: dict[str, Any] = {
    "weight_bytes": 98_000_000,
    "full_weight_bytes": 538_000_000,
    "draft_bytes": 0,
    "expert_bytes": 400_000_000,
    "active_expert_bytes": 100_000_000,
    "calibrated": CALIBRATED,
    "gaps": {"alone": {"p95_ms": 4.0, "n": 63}, "full": {"p95_ms": 50.0, "n": 12}},
}
ALL = ("ngram-speculation", "sparse-experts")


def worker(*, techniques: tuple[str, ...] = ALL, costs: Any = STATED, **told: Any) -> Worker:
    return Worker(techniques=list(techniques), engine={"costs": costs}, **told)


def costs_of(told: Worker) -> Any:
    """As they stand in JSON."""
    return msgspec.to_builtins(technique_costs.of(told))


def test_an_engine_that_tells_nothing_has_no_costs() -> None:
    assert technique_costs.of(None) is None
    assert technique_costs.of(worker(costs={})) is None
    assert technique_costs.of(Worker(engine={"dtype": "int8"})) is None


def test_shares_are_of_the_present_steps_where_there_are_enough() -> None:
    # when
    costs = costs_of(worker(totals=TOTALS))

    # then
    assert costs is not None
    assert (costs["basis"], costs["steps"]) == ("live", 1000)
    assert costs["weights"] == {"bytes": 98_000_000, "full_bytes": 538_000_000}
    assert costs["drafts"] == {"bytes": 0, "time_share": 0.005, "tokens_per_step": 1.4}
    assert costs["experts"] == {
        "bytes": 400_000_000,
        "active_bytes": 100_000_000,
        "dispatch_share": 0.25,
    }


def test_before_that_they_are_of_the_calibration() -> None:
    costs = costs_of(worker(totals={**TOTALS, "steps": 199}))

    assert costs is not None
    assert (costs["basis"], costs["steps"]) == ("calibration", 500)
    assert costs["drafts"]["time_share"] == 0.01
    assert costs["experts"]["dispatch_share"] == 0.1


@pytest.mark.parametrize(
    ("techniques", "told"),
    [((), (False, False)), (ALL[:1], (True, False)), (ALL[1:], (False, True))],
)
def test_only_techniques_that_run_have_a_cost(
    techniques: tuple[str, ...], told: tuple[bool, bool]
) -> None:
    costs = costs_of(worker(techniques=techniques))

    assert costs is not None
    assert (costs["drafts"] is not None, costs["experts"] is not None) == told


def test_what_was_not_measured_is_no_figure() -> None:
    # given an engine that knows its weights only
    costs = costs_of(worker(costs={"weight_bytes": 7}))

    assert costs == {
        "basis": "",
        "steps": 0,
        "weights": {"bytes": 7, "full_bytes": None},
        "drafts": {"bytes": None, "time_share": None, "tokens_per_step": None},
        "experts": {"bytes": None, "active_bytes": None, "dispatch_share": None},
        "gaps": {"alone": None, "full": None},
    }


def test_dispatch_that_cannot_be_timed_is_not_free() -> None:
    costs = costs_of(worker(totals={**TOTALS, "dispatch_seconds": 0.0}))

    assert costs is not None
    assert costs["experts"]["dispatch_share"] is None


def test_gaps_are_live_where_there_are_enough_of_them() -> None:
    # given twelve gaps of a full house in the calibration, which say nothing
    few = {"gaps": {"alone": {"p95_ms": 9.0, "n": 99}}}
    many = {"gaps": {"alone": {"p95_ms": 9.0, "n": 100}, "full": {"p95_ms": 80.0, "n": 400}}}

    # when
    early, late = (costs_of(worker(load=load)) for load in (few, many))

    # then
    assert early is not None
    assert late is not None
    assert early["gaps"] == {
        "alone": {"p95_ms": 4.0, "n": 63, "basis": "calibration"},
        "full": None,
    }
    assert late["gaps"] == {
        "alone": {"p95_ms": 9.0, "n": 100, "basis": "live"},
        "full": {"p95_ms": 80.0, "n": 400, "basis": "live"},
    }
