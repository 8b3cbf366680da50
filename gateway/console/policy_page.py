"""What the routing page says of each policy: how it chooses, and what it would have cost."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from gateway.console.forms import usd_per_million_of
from gateway.console.overview import repricing
from gateway.console.overview.repricing import Effect
from gateway.models import RoutingPolicy

Kind = RoutingPolicy.Kind

EXPLAINED: Final = (
    (
        Kind.CHEAPEST,
        "Cheapest",
        "The lowest expected cost of this very request: its tokens at each offer's price.",
    ),
    (
        Kind.FASTEST,
        "Fastest",
        "The earliest last token, from what was measured in the last hour: time to the first "
        "token, then tokens per second.",
    ),
    (
        Kind.IN_HOUSE_FIRST,
        "In-house first",
        "Our own workers, cheapest first; outside sellers only when none of them can take it.",
    ),
    (
        Kind.PINNED,
        "Pinned",
        "Only the offers you name, in the order you name them.",
    ),
)


@dataclass(frozen=True, slots=True)
class Option:
    kind: str
    label: str
    why: str
    effect: Effect | None


def options(tenant_id: int, policy: RoutingPolicy, *, now: datetime) -> list[Option]:
    uses = repricing.recent_use(tenant_id, now=now)
    return [
        Option(
            kind=kind.value,
            label=label,
            why=why,
            effect=repricing.effect(uses, kind=kind.value, pinned_skus=policy.pinned_skus)
            if uses and (kind != Kind.PINNED or policy.pinned_skus)
            else None,
        )
        for kind, label, why in EXPLAINED
    ]


def initial(policy: RoutingPolicy) -> dict[str, Any]:
    return {
        "kind": policy.kind,
        "pinned_skus": "\n".join(policy.pinned_skus),
        "providers_allowed": ", ".join(policy.providers_allowed),
        "max_input_usd": usd_per_million_of(policy.max_input_pico),
        "max_output_usd": usd_per_million_of(policy.max_output_pico),
        "allow_fallbacks": policy.allow_fallbacks,
    }
