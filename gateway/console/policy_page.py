"""What the routing page says of each policy: how it chooses, and what it would have cost."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from gateway.console.forms import usd_per_million_of
from gateway.console.overview import repricing
from gateway.console.overview.repricing import Effect
from gateway.models import RoutingPolicy
from gateway.routing.policies import EXPLAINED, PolicyKind


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
            if uses and (kind != PolicyKind.PINNED or policy.pinned_skus)
            else None,
        )
        for kind, (label, why) in EXPLAINED.items()
    ]


def initial(policy: RoutingPolicy) -> dict[str, str | bool | Decimal | None]:
    return {
        "kind": policy.kind,
        "pinned_skus": "\n".join(policy.pinned_skus),
        "providers_allowed": ", ".join(policy.providers_allowed),
        "max_input_usd": usd_per_million_of(policy.max_input_pico),
        "max_output_usd": usd_per_million_of(policy.max_output_pico),
        "allow_fallbacks": policy.allow_fallbacks,
    }
