"""The shapes of boards: what is computed, kept as JSON, told by the API and shown on pages. Pure.

Fields stand in the order in which JSON has them. One that came later has a default: rows that were
kept before it are read all the same.
"""

from typing import TypeAlias

import msgspec

Number: TypeAlias = int | float
Names: TypeAlias = list[str]


class MixFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens on which every offer of a board is priced."""

    source: str
    requests: int
    uncached_tokens: int
    cached_tokens: int
    output_tokens: int
    input_per_output: Number
    cache_share: Number


class ListFigures(msgspec.Struct, frozen=True, kw_only=True):
    input_pico: int
    cached_pico: int
    output_pico: int
    price_version: int
    since: str
    source: str
    free: bool


class Effective(msgspec.Struct, frozen=True, kw_only=True):
    """`basis`: `measured` by the offer's own cache-hit rate, `list` without any."""

    pico: int
    basis: str
    cache_share: Number


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    input: int
    cached: int
    output: int


class Times(msgspec.Struct, frozen=True, kw_only=True):
    p50: Number
    p95: Number
    n: int


class Speeds(msgspec.Struct, frozen=True, kw_only=True):
    p50: Number
    p5: Number
    n: int


class Uptime(msgspec.Struct, frozen=True, kw_only=True):
    percent: Number
    minutes: int


class Speculation(msgspec.Struct, frozen=True, kw_only=True):
    acceptance_rate: Number
    acceptance_length: Number


class MoveFigures(msgspec.Struct, frozen=True, kw_only=True):
    """`percent` is None where it was free before."""

    at: str
    before_output_pico: int
    output_pico: int
    percent: Number | None
    why: str


class Hourly(msgspec.Struct, frozen=True, kw_only=True):
    usd_per_hour_pico: int
    source: str
    actual_output_pico: int | None
    utilisation: Number | None


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    answers: int
    ties: int
    different: int


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    source: str
    joules_per_m: Number | None
    joules_per_m_saturated: Number | None


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    brittle: bool
    worst_slice: str
    measure: str
    disagreement_percent: Number
    loss_percent: Number
    sample: Number


class WeightBytes(msgspec.Struct, frozen=True, kw_only=True):
    bytes: Number | None
    full_bytes: Number | None


class DraftCosts(msgspec.Struct, frozen=True, kw_only=True):
    bytes: Number | None
    time_share: Number | None
    tokens_per_step: Number | None


class ExpertCosts(msgspec.Struct, frozen=True, kw_only=True):
    bytes: Number | None
    active_bytes: Number | None
    dispatch_share: Number | None


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    p95_ms: Number
    n: int
    basis: str


class Gaps(msgspec.Struct, frozen=True, kw_only=True):
    alone: Gap | None
    full: Gap | None


class TechniqueCosts(msgspec.Struct, frozen=True, kw_only=True):
    """`basis`: live, calibration or empty."""

    basis: str
    steps: int
    weights: WeightBytes
    drafts: DraftCosts | None
    experts: ExpertCosts | None
    gaps: Gaps


class Row(msgspec.Struct, kw_only=True):
    """One offer. `rank` is None without an effective price."""

    offer_id: int
    sku: str
    provider: str
    provider_name: str
    kind: str
    variant: str
    upstream_model: str
    techniques: Names
    quantization: str
    context_length: int | None
    state: str
    state_reason: str
    routable: bool
    not_routable: str
    rank: int | None
    paid_pico: int | None
    list: ListFigures | None
    blended_3_1_pico: int | None
    blended_7_2_1_pico: int | None
    effective: Effective | None
    requests: int
    succeeded: int
    failed: int
    cancelled: int
    errors: dict[str, int]
    tokens: Tokens
    ttft_ms: Times | None
    output_tps: Speeds | None
    e2e_ms: Times | None
    uptime: Uptime | None
    too_few: Names
    last_at: str | None
    speculation: Speculation | None
    move: MoveFigures | None = None
    hourly: Hourly | None = None
    audit: Audit | None = None
    energy: Energy | None = None
    quality: Quality | None = None
    costs: TechniqueCosts | None = None


class SpeculationFact(msgspec.Struct, frozen=True, kw_only=True):
    """What speculation saves: the cheapest measured in-house offer with it and without it."""

    percent: Number
    plain_sku: str
    fast_sku: str
    plain_effective_pico: int
    fast_effective_pico: int
    n: int


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    requests: int
    sellers: int
    routable: int
    speculation: SpeculationFact | None


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One offer of a model at its price in force, and on the standard mix."""

    sku: str
    provider_name: str
    output_pico: int
    effective_pico: int


class Fastest(msgspec.Struct, frozen=True, kw_only=True):
    sku: str
    provider_name: str
    output_tps_p50: Number
    n: int


class HomeRow(msgspec.Struct, frozen=True, kw_only=True):
    """One model; see docs/leaderboards-api.md. `spark`: moments and the lowest price from then."""

    model: str
    name: str
    creator: str
    sellers: int
    routable: int
    requests: int
    cheapest: Listed | None
    creator_price: Listed | None
    in_house: Listed | None
    spread: Number | None
    change_30d_percent: Number | None
    spark: list[tuple[str, int]]
    fastest: Fastest | None
