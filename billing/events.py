"""The usage event on its way from the data plane to the drain: one per attempt. Pure.

The settle script adds to each stream entry what only it knows: what was charged and held.
"""

import msgspec

from billing.usage import CanonicalUsage


class AttemptEvent(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One try at one offer. `tenant_cost_pico` is what the data plane rated; 0 if nobody pays.

    `price` is the version rated by; `prices` every version pinned for this attempt's sku.
    `outcome`: ok, client_cancelled, client_stalled, upstream_error, upstream_cut, refused,
    deadline, unknown. Times are milliseconds since the epoch on the gateway's clock.
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
    usage_source: str = "none"
    billable: bool = True
    tenant_cost_pico: int = 0
    supplier_cost_pico: int = 0
    occurred_ms: int
    settled_ms: int
    detail: "AttemptDetail"


class AttemptDetail(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Opaque to billing: what people and measurements want to know of the attempt.

    All times are the gateway's clock. `ranking` is the routing explanation and stands on the
    first attempt only.
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
    tag: str = ""
    cancel_applied: str = ""
    speculation: dict[str, int] | None = None
    ranking: dict[str, object] | None = None


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(AttemptEvent).decode
