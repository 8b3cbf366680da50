"""Reads a LiteLLM proxy's configuration: what of it becomes ours, and what does not, line by line.

Models become offers of the catalogue where the seller is known here; budgets and limits become
those of a tenant. Credentials are never read: what stands in the file may be a secret.
"""

from dataclasses import dataclass, field
from typing import Final, NotRequired, TypeAlias, TypedDict

import msgspec

from gateway.declared.document import FILE_BYTES_MAX, DocumentRefused
from providers.market.model_names import LITELLM_SELLERS, name_of
from providers.models import Offer

WINDOWS: Final = {"1d": "day", "24h": "day", "7d": "week", "30d": "month", "1mo": "month"}
STRATEGIES: Final = {
    "cost-based-routing": "cheapest",
    "latency-based-routing": "fastest",
    "simple-shuffle": "cheapest",
}
# Settings that ask for what is always so here, or that mean nothing outside LiteLLM.
NEEDLESS: Final = frozenset({"drop_params", "set_verbose", "num_retries", "request_timeout"})


Settings: TypeAlias = dict[object, object]


class Configuration(msgspec.Struct, frozen=True):
    """What is read of a proxy's configuration; its settings' names are looked at one by one."""

    model_list: list[object] | None = None
    litellm_settings: Settings | None = None
    general_settings: Settings | None = None
    router_settings: Settings | None = None


class MappedQuota(TypedDict):
    scope: str
    window: str
    limit_usd: str


class MappedPolicy(TypedDict):
    kind: str


class MappedTenant(TypedDict):
    """A tenant as the declarative file has it."""

    slug: str
    name: str
    quotas: NotRequired[list[MappedQuota]]
    policy: NotRequired[MappedPolicy]


@dataclass(slots=True)
class Mapped:
    """What was found: lines for a person, and a tenant for the declarative file."""

    tenant: MappedTenant
    mapped: list[str] = field(default_factory=list)
    unmapped: list[str] = field(default_factory=list)


def read(text: bytes, *, slug: str) -> Mapped:
    """Map a configuration to the tenant `slug`. DocumentRefused where it is none."""
    if len(text) > FILE_BYTES_MAX:
        raise DocumentRefused(f"the file is larger than {FILE_BYTES_MAX} bytes")
    try:
        config = msgspec.yaml.decode(text, type=Configuration)
    except (msgspec.MsgspecError, RecursionError) as problem:
        raise DocumentRefused(str(problem)) from problem
    found = Mapped(tenant={"slug": slug, "name": slug})
    for number, entry in enumerate(config.model_list or (), start=1):
        _model(found, number, entry)
    settings = {**_named(config.litellm_settings), **_named(config.general_settings)}
    _budget(found, settings)
    for name in sorted(settings.keys() - NEEDLESS):
        found.unmapped.append(f"setting {name}: has no counterpart here")
    _routing(found, _named(config.router_settings))
    return found


def _model(found: Mapped, number: int, entry: object) -> None:
    params = entry.get("litellm_params") if isinstance(entry, dict) else None
    name = params.get("model") if isinstance(params, dict) else None
    if not isinstance(name, str) or not isinstance(params, dict) or not isinstance(entry, dict):
        found.unmapped.append(f"model_list, entry {number}: names no model")
        return
    asked = str(entry.get("model_name") or name)[:200]
    if params.get("api_base"):
        found.unmapped.append(f"{asked}: its own address; attach it with manage.py attach_pool")
        return
    seller, _, upstream = name.partition("/")
    if not upstream:
        seller, upstream = "openai", name
    provider = LITELLM_SELLERS.get(seller, seller)
    slug = name_of(provider, upstream).slug
    offers = Offer.objects.filter(provider__slug=provider, model__slug=slug)
    sku = offers.order_by("pk").values_list("sku", flat=True).first()
    if sku is None:
        found.unmapped.append(f"{asked}: {provider} sells no {slug} in this catalogue")
    else:
        other = "" if asked == slug else f"; clients ask for it as {slug} here"
        found.mapped.append(f"{asked}: {sku}{other}")


def _budget(found: Mapped, settings: dict[str, object]) -> None:
    most, duration = settings.pop("max_budget", None), settings.pop("budget_duration", None)
    if most is None:
        return
    window = WINDOWS.get(str(duration), "lifetime" if duration is None else "")
    if not window or isinstance(most, bool) or not isinstance(most, int | float | str):
        found.unmapped.append(f"max_budget {most} per {duration}: no such window here")
        return
    found.tenant["quotas"] = [{"scope": "tenant", "window": window, "limit_usd": str(most)}]
    found.mapped.append(f"max_budget {most}: a quota of the tenant per {window}")


def _routing(found: Mapped, router: dict[str, object]) -> None:
    strategy = router.pop("routing_strategy", None)
    if strategy in STRATEGIES:
        found.tenant["policy"] = {"kind": STRATEGIES[strategy]}
        found.mapped.append(f"routing_strategy {strategy}: {STRATEGIES[strategy]}")
    elif strategy is not None:
        found.unmapped.append(f"routing_strategy {strategy}: choose a policy here")
    for name in sorted(router.keys() - NEEDLESS):
        found.unmapped.append(f"router setting {name}: has no counterpart here")


def _named(settings: Settings | None) -> dict[str, object]:
    """By names that are texts: YAML's may be numbers."""
    return {str(name): value for name, value in (settings or {}).items()}
