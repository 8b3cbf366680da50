"""The usage event on its way from the data plane to the drain: one per attempt. Pure.

The settle script adds to each stream entry what only it knows: what was charged and held.
"""

from collections.abc import Mapping
from numbers import Real

import msgspec

from billing import basis
from billing.samples import Sample
from billing.usage import CanonicalUsage

WORD_LENGTH_MAX = 200
COUNT_MAX = 1_000_000_000
QUEUE_MS_MAX = 10**12
SETTLED = b',"settled_ms":'


class AttemptFacts(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What billing understands of one try at one offer.

    `tenant_cost_pico` is what the data plane rated; 0 if nobody pays.
    `price` is the version rated by; `prices` every version pinned for this attempt's sku.
    `outcome`: one of `billing.outcomes`. Times are milliseconds since the epoch on the gateway's
    clock.
    """

    request_id: str
    attempt: int
    tenant: int
    key: int
    team: int | None = None
    session: str = ""
    sku: str
    price: int | None = None
    prices: tuple[int, ...] = ()
    service_tier: int = 0
    offer: int
    supplier: str
    model: str
    outcome: str
    usage: CanonicalUsage | None = None
    usage_source: str = basis.NONE
    # What is wrong with the seller's counts; and what it counted beyond all that was asked of it,
    # which is not what `usage` says.
    problem: str = ""
    claimed: CanonicalUsage | None = None
    billable: bool = True
    tenant_cost_pico: int = 0
    supplier_cost_pico: int = 0
    occurred_ms: int
    settled_ms: int


class Estimated(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt probably used and cost, where its own counts cannot be taken."""

    input_tokens: int
    output_tokens: int
    basis: str
    tenant_pico: int


class AttemptDetail(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Opaque to billing: what people and measurements want to know of the attempt.

    All times are the gateway's clock. `ranking` is the routing explanation and stands on the
    first attempt only. Some of it is the upstream's own words: they are cut to what can be read
    back and kept, because an event that cannot is work that nobody pays.
    """

    surface: str = ""
    stream: bool = False
    policy: str = ""
    status: int = 0
    error: str = ""
    finish_reason: str = ""
    ttft_ms: float | None = None
    e2e_ms: float | None = None
    queue_ms: float | None = None
    output_tps: float | None = None
    tpot_ms: float | None = None
    upstream_id: str = ""
    served_tier: str = ""
    # Bytes of text that the upstream sent, reasoning and tool arguments included; whose counts
    # input and output are, where they are not its own; and where those cannot be billed, what it
    # probably was.
    output_bytes: int = 0
    basis: tuple[str, str] | None = None
    estimate: Estimated | None = None
    tag: str = ""
    input_bound: int = 0
    cancel_applied: str = ""
    speculation: dict[str, int] | None = None
    ranking: Mapping[str, object] | None = None
    # Counted texts of this attempt that all processes learn from.
    taught: tuple[Sample, ...] = ()

    def __post_init__(self) -> None:
        self.finish_reason = _word(self.finish_reason)
        self.upstream_id = _word(self.upstream_id)
        self.served_tier = _word(self.served_tier)
        if self.queue_ms is not None and not _is_time(self.queue_ms):
            self.queue_ms = None
        if self.speculation is not None:
            self.speculation = _counts(self.speculation)


def _word(text: str) -> str:
    if text.isprintable() and len(text) <= WORD_LENGTH_MAX:
        return text
    return "".join(c for c in text if c.isprintable())[:WORD_LENGTH_MAX]


def _is_time(value: object) -> bool:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and 0 <= value <= QUEUE_MS_MAX  # type: ignore[operator]


def _counts(stated: Mapping[str, object]) -> dict[str, int]:
    return {
        name: value
        for name, value in stated.items()
        if type(value) is int and 0 <= value <= COUNT_MAX and _word(name) == name
    }


class AttemptEvent(AttemptFacts, kw_only=True):
    """The whole event, as the data plane writes it. `settled_ms` and `detail` come last on the
    wire: what stands before them is the same however often a settle is said."""

    detail: AttemptDetail


class SealedEvent(AttemptFacts, kw_only=True, gc=False):
    """The same event for the drain, which stores the detail and need not look into it."""

    detail: msgspec.Raw


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(AttemptEvent).decode
decode_sealed = msgspec.json.Decoder(SealedEvent).decode
decode_detail = msgspec.json.Decoder(AttemptDetail).decode


def detail_of(event: SealedEvent) -> AttemptDetail:
    return decode_detail(event.detail)


def said(body: bytes) -> bytes:
    """The part of an encoded event that a settle said again repeats byte for byte.

    No string or free-form object before `settled_ms` can contain its name in plain quotes.
    """
    return body.partition(SETTLED)[0]
