"""What a worker and a gateway's console tell each other.

The console has the same shapes, with the limits of what it takes, in `gateway.api.shapes`; a test
holds the two side by side. What an engine does not know is left out.
"""

from dataclasses import dataclass

import msgspec

from workers.engine.gaps import GapFigures
from workers.engine.totals import Totals
from workers.quality import QualityFacts


class CalibratedWork(msgspec.Struct, kw_only=True):
    """What the calibration took, in engine time."""

    steps: int
    output_tokens: int
    busy_seconds: float
    draft_seconds: float
    dispatch_seconds: float


class CalibrationFacts(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the first price is made of."""

    input_tokens_per_s: float
    output_tokens_per_s: float
    input_time_share: float
    seconds: float
    sample: int
    mix: str
    output_tokens: int
    joules: float | None = None


class Costs(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What the techniques take: bytes now, times and gaps of the calibration."""

    weight_bytes: int
    full_weight_bytes: int
    draft_bytes: int | None = None
    expert_bytes: int | None = None
    active_expert_bytes: int | None = None
    calibrated: CalibratedWork
    gaps: GapFigures


class EngineFacts(msgspec.Struct, omit_defaults=True, kw_only=True):
    version: str
    dtype: str
    linear: str
    threads: int
    device: str
    energy: str
    quality: QualityFacts | None = None
    torch: str


class RegistrationBody(msgspec.Struct, kw_only=True):
    """Who it is, what it can, and what an hour of it costs, in dollars as a decimal."""

    name: str
    base_url: str
    bearer: str
    model: str
    context_length: int
    max_output_tokens: int
    techniques: list[str]
    features: list[str]
    usd_per_hour: str
    usd_per_hour_source: str
    calibration: CalibrationFacts
    costs: Costs
    engine: EngineFacts


@dataclass(slots=True, kw_only=True)
class HeartbeatTotals(Totals):
    uptime_s: float


class HeartbeatBody(msgspec.Struct, kw_only=True):
    worker_id: int
    running: int
    waiting: int
    kv_cache_usage: float
    gaps: GapFigures
    totals: HeartbeatTotals


class Registered(msgspec.Struct):
    """The console's answer: by which number it knows the worker, and how often to be heard."""

    worker_id: int
    heartbeat_seconds: float


class Heard(msgspec.Struct):
    """The console's answer to a heartbeat: an object, whatever it holds."""
