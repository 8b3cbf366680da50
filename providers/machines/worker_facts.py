"""What a worker said of its techniques' costs, as it is kept: checked by the API when it was told.

The worker's side is `workers.server.console_bodies`, the limits are `gateway.api.shapes`'; a test
holds all three side by side. None is what this engine does not know.
"""

import msgspec

from providers.models import Worker


class Gap(msgspec.Struct, frozen=True):
    """`n`: of how many gaps between tokens it is the 95th percentile."""

    p95_ms: float
    n: int


class Gaps(msgspec.Struct, frozen=True):
    alone: Gap | None = None
    full: Gap | None = None


class CalibratedWork(msgspec.Struct, frozen=True, kw_only=True):
    """Steps, and the engine time of their parts."""

    steps: int
    output_tokens: int
    busy_seconds: float
    draft_seconds: float | None = None
    dispatch_seconds: float | None = None


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    weight_bytes: int | None = None
    full_weight_bytes: int | None = None
    draft_bytes: int | None = None
    expert_bytes: int | None = None
    active_expert_bytes: int | None = None
    calibrated: CalibratedWork | None = None
    gaps: Gaps = Gaps()


def costs_of(worker: Worker) -> Costs | None:
    """None of an engine that told nothing."""
    stated = worker.engine.get("costs")
    return msgspec.convert(stated, Costs) if stated else None


def gaps_now(worker: Worker) -> Gaps:
    """Those of its present traffic, by its last heartbeat."""
    return msgspec.convert(worker.load.get("gaps") or {}, Gaps)
