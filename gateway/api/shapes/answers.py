"""The shapes that the management API answers with, as its reference names them.

Sums of money are decimal text in dollars (`_usd`: exact) or with two decimals (cents).
"""

from typing import TypedDict

from gateway.routing.explained import Explanation


class LineAnswer(TypedDict):
    kind: str
    model: str
    sku: str
    price_version: int | None
    unit: str
    quantity: int
    usd_per_million: str | None
    exact_usd: str
    amount: str
    service_start: str
    service_end: str


class NoteAnswer(TypedDict):
    number: str
    reason: str
    net: str
    tax: str
    issued_at: str


class InvoiceAnswer(TypedDict):
    number: str | None
    state: str
    period_start: str
    period_end: str
    time_zone: str
    issued_at: str | None
    due_on: str | None
    currency: str
    usage_usd: str
    adjustments_usd: str
    subtotal: str
    covered_by_credit: str
    covered_untaxed: str
    tax: str
    total: str
    open: str


class WholeInvoiceAnswer(InvoiceAnswer):
    lines: list[LineAnswer]
    credit_notes: list[NoteAnswer]


class AdjustmentAnswer(TypedDict):
    """`months`: what of it belongs to which month."""

    number: str
    cause: str
    reason: str
    charged_usd: str
    months: dict[str, str]
    issued_at: str


class RefundAnswer(TypedDict):
    number: str
    cause: str
    receipt: str | None
    issued_at: str
    payment_reference: str
    currency: str
    net: str
    tax: str
    total: str


class ReceiptAnswer(TypedDict):
    number: str
    issued_at: str
    payment_reference: str
    currency: str
    net: str
    tax: str
    total: str
    refunded: str


class VersionAnswer(TypedDict):
    """`hours_utc` is None where it holds all day."""

    version: int
    service_tier: str
    context_over: int
    hours_utc: str | None
    valid_from: str
    valid_to: str | None
    source: str
    usd_per_million: dict[str, str | None]


class PriceListAnswer(TypedDict):
    sku: str
    versions: list[VersionAnswer]


class HeldAnswer(TypedDict):
    """What is debited and not charged, why, and what is charged when nobody decides by then."""

    amount_usd: str
    estimate_usd: str
    reason: str
    settled_by: str


class TrueUpAnswer(TypedDict):
    attempt: int
    input_tokens: int
    output_tokens: int
    given_back_usd: str
    note: str | None


class EstimateAnswer(TypedDict):
    """What an attempt probably used, where its own counts cannot be taken."""

    input_tokens: int
    output_tokens: int
    basis: str
    tenant_pico: int


class DetailAnswer(TypedDict, total=False):
    """What is known beside the counts. Times are the gateway's clock, and what does not apply is
    left out; `ranking` stands on the first attempt."""

    surface: str
    stream: bool
    policy: str
    status: int
    error: str
    finish_reason: str
    ttft_ms: float | None
    e2e_ms: float | None
    queue_ms: float | None
    output_tps: float | None
    tpot_ms: float | None
    upstream_id: str
    served_tier: str
    output_bytes: int
    basis: list[str] | None
    estimate: EstimateAnswer | None
    tag: str
    input_bound: int
    cancel_applied: str
    speculation: dict[str, int] | None
    ranking: Explanation


class AttemptAnswer(TypedDict):
    attempt: int
    sku: str
    supplier: str
    model: str
    outcome: str
    state: str
    usage_source: str
    confidence: str
    price_version: int | None
    cost_usd: str
    held: HeldAnswer | None
    detail: DetailAnswer
    input_tokens: int
    cache_read_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    output_tokens: int
    reasoning_tokens: int


class RequestAnswer(TypedDict):
    request_id: str
    occurred_at: str
    cost_usd: str
    attempts: list[AttemptAnswer]


class WholeRequestAnswer(RequestAnswer):
    trued_up: list[TrueUpAnswer]


class RequestsAnswer(TypedDict):
    requests: list[RequestAnswer]


class UsageTotals(TypedDict):
    requests: int
    attempts: int
    input_tokens: int
    cache_read_tokens: int
    output_tokens: int
    cost_usd: str


class UsageDay(TypedDict):
    day: str
    model: str
    supplier: str
    requests: int
    input_tokens: int
    output_tokens: int
    cost_usd: str


class UsageAnswer(TypedDict):
    since: str
    until: str
    totals: UsageTotals
    days: list[UsageDay]


class ChargebackLine(TypedDict):
    team: str
    model: str
    requests: int
    input_tokens: int
    output_tokens: int
    cost_usd: str


class CostCentreAnswer(TypedDict):
    cost_centre: str
    requests: int
    cost_usd: str
    lines: list[ChargebackLine]


class ChargebackAnswer(TypedDict):
    month: str
    cost_centres: list[CostCentreAnswer]
