"""What an in-house offer's techniques cost, beside what they give, from what its engine said. Pure.

Times are shares of the engine's own steps: live where it has made enough of them since its start,
else those of its calibration. What was not measured is None, never zero.
"""

from collections.abc import Mapping

from providers.boards.shapes import (
    DraftCosts,
    ExpertCosts,
    Gap,
    Gaps,
    TechniqueCosts,
    WeightBytes,
)
from providers.machines import worker_facts
from providers.machines.worker_facts import CalibratedWork, Costs
from providers.models import Worker

STEPS_LEAST = 200
GAPS_LEAST = 100
CALIBRATED_GAPS_LEAST = 20
PARTS_OF_A_STEP = ("input_seconds", "output_seconds", "audit_seconds")


def of(worker: Worker | None) -> TechniqueCosts | None:
    """Bytes, shares of a step and gaps of the techniques that it runs; None if it told none."""
    costs = worker_facts.costs_of(worker) if worker is not None else None
    if worker is None or costs is None:
        return None
    work = _live(worker.totals) or costs.calibrated
    live = worker_facts.gaps_now(worker)
    speculates = any(name.endswith("-speculation") for name in worker.techniques)
    is_sparse = "sparse-experts" in worker.techniques
    return TechniqueCosts(
        basis=_basis(work, costs),
        steps=work.steps if work else 0,
        weights=WeightBytes(bytes=costs.weight_bytes, full_bytes=costs.full_weight_bytes),
        drafts=_drafts(costs, work) if speculates else None,
        experts=_experts(costs, work) if is_sparse else None,
        gaps=Gaps(alone=_gap(live.alone, costs.gaps.alone), full=_gap(live.full, costs.gaps.full)),
    )


def _basis(work: CalibratedWork | None, costs: Costs) -> str:
    if work is None:
        return ""
    return "calibration" if work is costs.calibrated else "live"


def _live(totals: Mapping[str, float]) -> CalibratedWork | None:
    """The steps since its start; None where they are too few."""
    if totals.get("steps", 0) < STEPS_LEAST:
        return None
    return CalibratedWork(
        steps=int(totals["steps"]),
        output_tokens=int(totals.get("output_tokens", 0)),
        busy_seconds=sum(totals.get(name, 0.0) for name in PARTS_OF_A_STEP),
        draft_seconds=totals.get("draft_seconds"),
        dispatch_seconds=totals.get("dispatch_seconds"),
    )


def _drafts(costs: Costs, work: CalibratedWork | None) -> DraftCosts:
    return DraftCosts(
        bytes=costs.draft_bytes,
        time_share=_share(work.draft_seconds, work) if work else None,
        tokens_per_step=round(work.output_tokens / work.steps, 3) if work else None,
    )


def _experts(costs: Costs, work: CalibratedWork | None) -> ExpertCosts:
    return ExpertCosts(
        bytes=costs.expert_bytes,
        active_bytes=costs.active_expert_bytes,
        # An engine that cannot time it says zero: no gate takes no time at all.
        dispatch_share=(_share(work.dispatch_seconds, work) or None) if work else None,
    )


def _share(seconds: float | None, work: CalibratedWork) -> float | None:
    if seconds is None or not work.busy_seconds:
        return None
    return round(seconds / work.busy_seconds, 5)


def _gap(live: worker_facts.Gap | None, calibrated: worker_facts.Gap | None) -> Gap | None:
    """The p95 between tokens of one stream: of the present traffic, else of the calibration."""
    if live is not None and live.n >= GAPS_LEAST:
        return Gap(p95_ms=live.p95_ms, n=live.n, basis="live")
    if calibrated is not None and calibrated.n >= CALIBRATED_GAPS_LEAST:
        return Gap(p95_ms=calibrated.p95_ms, n=calibrated.n, basis="calibration")
    return None
