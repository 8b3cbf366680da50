"""What an in-house offer's techniques cost, beside what they give, from what its engine said. Pure.

Times are shares of the engine's own steps: live where it has made enough of them since its start,
else those of its calibration. What was not measured is None, never zero.
"""

from collections.abc import Mapping
from typing import Any

from providers.boards.shapes import (
    DraftCosts,
    ExpertCosts,
    Gap,
    Gaps,
    TechniqueCosts,
    WeightBytes,
)
from providers.models import Worker

STEPS_LEAST = 200
GAPS_LEAST = 100
CALIBRATED_GAPS_LEAST = 20
GAP_KINDS = ("alone", "full")
PARTS_OF_A_STEP = ("input_seconds", "output_seconds", "audit_seconds")

Numbers = Mapping[str, Any]


def of(worker: Worker | None) -> TechniqueCosts | None:
    """Bytes, shares of a step and gaps of the techniques that it runs; None if it told none."""
    if worker is None or not worker.engine.get("costs"):
        return None
    stated: Numbers = worker.engine["costs"]
    basis, work = _work(worker.totals, stated.get("calibrated") or {})
    speculates = any(name.endswith("-speculation") for name in worker.techniques)
    is_sparse = "sparse-experts" in worker.techniques
    gaps = {kind: _gap(worker.load, stated, kind) for kind in GAP_KINDS}
    return TechniqueCosts(
        basis=basis,
        steps=int(work.get("steps", 0)),
        weights=WeightBytes(
            bytes=stated.get("weight_bytes"), full_bytes=stated.get("full_weight_bytes")
        ),
        drafts=_drafts(stated, work) if speculates else None,
        experts=_experts(stated, work) if is_sparse else None,
        gaps=Gaps(**gaps),
    )


def _work(totals: Numbers, calibrated: Numbers) -> tuple[str, Numbers]:
    """Which steps the shares are of, and their sums."""
    if totals.get("steps", 0) >= STEPS_LEAST:
        busy_s = sum(totals.get(name, 0.0) for name in PARTS_OF_A_STEP)
        return "live", {**totals, "busy_seconds": busy_s}
    return ("calibration", calibrated) if calibrated.get("steps") else ("", {})


def _drafts(stated: Numbers, work: Numbers) -> DraftCosts:
    steps = work.get("steps")
    return DraftCosts(
        bytes=stated.get("draft_bytes"),
        time_share=_share(work, "draft_seconds"),
        tokens_per_step=round(work.get("output_tokens", 0) / steps, 3) if steps else None,
    )


def _experts(stated: Numbers, work: Numbers) -> ExpertCosts:
    return ExpertCosts(
        bytes=stated.get("expert_bytes"),
        active_bytes=stated.get("active_expert_bytes"),
        # An engine that cannot time it says zero: no gate takes no time at all.
        dispatch_share=_share(work, "dispatch_seconds") or None,
    )


def _share(work: Numbers, name: str) -> float | None:
    busy_s, seconds = work.get("busy_seconds"), work.get(name)
    return round(seconds / busy_s, 5) if busy_s and seconds is not None else None


def _gap(load: Numbers, stated: Numbers, kind: str) -> Gap | None:
    """The p95 between tokens of one stream: of the present traffic, else of the calibration."""
    sources = (
        ("live", load.get("gaps"), GAPS_LEAST),
        ("calibration", stated.get("gaps"), CALIBRATED_GAPS_LEAST),
    )
    for basis, gaps, least in sources:
        gap = (gaps or {}).get(kind)
        if gap and gap["n"] >= least:
            return Gap(p95_ms=gap["p95_ms"], n=gap["n"], basis=basis)
    return None
