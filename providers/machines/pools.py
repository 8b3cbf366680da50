"""Existing OpenAI-compatible servers (vLLM, SGLang, TGI, llama.cpp, `transformers serve`).

A pool is a seller of its own, attached by its base URL. It sends no heartbeats;
`providers.machines.checks` asks it, and reads its load where it shows one. Its price is what the
operator says, since nobody measured its engine.
"""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final
from urllib.parse import urlsplit

from django.db import transaction

from billing import audit
from billing.money import pico_per_token
from billing.prices import versions as prices
from providers.chat import FETCHES
from providers.machines import addresses, pool_listing
from providers.machines.checks import root_of
from providers.machines.pool_listing import PoolRefused, Served, Tell
from providers.machines.pool_metrics import SALTED
from providers.market import credentials
from providers.market.model_names import creator_of, name_of, title_of
from providers.market.offers import CHAT, headers_for
from providers.models import Model, Offer, Provider

logger = logging.getLogger(__name__)

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,59}")
VARIANT_LENGTH_MAX: Final = 80
# The tag that stands for none.
LATEST: Final = "latest"
SLUG_LENGTH_MAX: Final = 160
CACHED_SHARE = Decimal("0.5")


@dataclass(frozen=True, slots=True)
class Terms:
    """Dollars per million tokens; an unstated cache price is half the input price."""

    input_usd: Decimal
    output_usd: Decimal
    cached_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the operator says of the server where it does not say so itself, or not rightly: which
    models it serves, the context of each (of all: under ""), whether it takes `cache_salt` (None:
    as it is found out) and may fetch what a prompt only gives the address of."""

    models: Sequence[str] = ()
    contexts: Mapping[str, int] = field(default_factory=dict)
    salted: bool | None = None
    fetches: bool = False


NOTHING: Final = Facts()


def attach(
    *,
    name: str,
    base_url: str,
    bearer: str,
    terms: Terms,
    recorded_by: str,
    now: datetime,
    facts: Facts = NOTHING,
    tell: Tell = logger.warning,
) -> list[Offer]:
    """Make a pool and an offer for each chat model that it serves; again: bring it up to date.
    `tell` hears what was passed over, and why.

    With `facts.models` the server is not asked for its list: `transformers serve` lists its cache
    of downloads there and not the folder it serves. It is then checked at its /health.
    """
    if not NAME.fullmatch(name):
        raise PoolRefused("a pool's name is lower-case letters, digits and dashes")
    checked = addresses.checked_base_url(base_url, network=None)
    if not urlsplit(checked).path:
        checked = f"{checked}/v1"
    check_url = f"{root_of(checked)}/health" if facts.models else ""
    served = _served(checked, check_url, bearer, facts, tell)
    with transaction.atomic():
        provider = _provider(name, checked, check_url, salted=_is_salted(served, facts))
        if bearer:
            credentials.store(provider=provider, label="pool", secret=bearer)
        made = _offers(provider, served, facts, now)
        for offer in made:
            _price(offer, terms, recorded_by, now)
        audit.record(
            actor=recorded_by,
            action="pool.attach",
            subject=provider.slug,
            after={"base_url": checked, "skus": [offer.sku for offer in made]},
            now=now,
        )
    return made


def _served(base_url: str, check_url: str, bearer: str, facts: Facts, tell: Tell) -> list[Served]:
    headers = headers_for(Provider.Wire.OPENAI, bearer) if bearer else {}
    if facts.models:
        served = pool_listing.named(
            facts.models, check_url=check_url, base_url=base_url, headers=headers
        )
    else:
        served = pool_listing.listed(base_url=base_url, headers=headers, tell=tell)
    if not served:
        raise PoolRefused("the server lists no model")
    unknown = facts.contexts.keys() - {one.id for one in served} - {""}
    if unknown:
        raise PoolRefused(f"the server serves no {', '.join(sorted(unknown))}")
    return served


def _is_salted(served: Sequence[Served], facts: Facts) -> bool | None:
    """Whether prompts may be kept apart by `cache_salt`; None where nobody knows yet."""
    if facts.salted is not None:
        return facts.salted
    return True if any(one.maker in SALTED for one in served) else None


def _provider(name: str, base_url: str, check_url: str, *, salted: bool | None) -> Provider:
    slug = f"pool-{name}"
    moved = Provider.objects.filter(slug=slug).exclude(base_url=base_url).first()
    if moved is not None:
        credentials.clear_marks(provider_id=moved.pk)
    provider, _ = Provider.objects.update_or_create(
        slug=slug,
        defaults={
            "name": f"Pool {name}",
            "kind": Provider.Kind.POOL,
            "wire": Provider.Wire.OPENAI,
            "base_url": base_url,
            "check_url": check_url,
            **({} if salted is None else {"salted": salted}),
        },
    )
    return provider


def _offers(
    provider: Provider, served: Sequence[Served], facts: Facts, now: datetime
) -> list[Offer]:
    """One for each id; ids that differ by case alone are one model."""
    by_sku = {f"{provider.slug}/{one.id}".lower(): one for one in served}
    slugs = {sku: slug_of(provider.slug, one.id) for sku, one in by_sku.items()}
    shared = Counter(slugs.values())
    made = []
    for sku, one in by_sku.items():
        slug = slugs[sku]
        model, _ = Model.objects.get_or_create(
            slug=slug, defaults={"name": title_of(slug), "creator": creator_of(slug)}
        )
        stated = facts.contexts.get(one.id) or facts.contexts.get("")
        offer, _ = Offer.objects.update_or_create(
            sku=sku,
            defaults={
                "provider": provider,
                "model": model,
                # Several ids of the same weights are told apart by these ids.
                "variant": one.id.lower()[-VARIANT_LENGTH_MAX:] if shared[slug] > 1 else "",
                "upstream_model": one.id,
                "context_length": stated or one.context_length,
                "max_output_tokens": one.output,
                "capabilities": [CHAT, FETCHES] if facts.fetches else [CHAT],
                "state": Offer.State.LIVE,
                "state_reason": "",
                "state_changed_at": now,
            },
        )
        made.append(offer)
    return made


def slug_of(provider_slug: str, model_id: str) -> str:
    """The weights behind an id of a server. A tag is part of their name: `qwen3:8b` and `qwen3:32b`
    are two models, where catalogues have such tags for servings of one."""
    base, _, tag = model_id.strip("/").partition(":")
    named = base if tag in ("", LATEST) else f"{base}-{tag}"
    return (name_of(provider_slug, named.replace(":", "-")).slug or named.lower())[:SLUG_LENGTH_MAX]


def _price(offer: Offer, terms: Terms, recorded_by: str, now: datetime) -> None:
    cached = terms.input_usd * CACHED_SHARE if terms.cached_usd is None else terms.cached_usd
    input_pico, output_pico = pico_per_token(terms.input_usd), pico_per_token(terms.output_usd)
    prices.publish(
        sku_code=offer.sku,
        input_pico=input_pico,
        cache_read_pico=pico_per_token(cached),
        cache_write_5m_pico=input_pico,
        cache_write_1h_pico=input_pico,
        output_pico=output_pico,
        reasoning_pico=output_pico,
        valid_from=now,
        source="operator",
        recorded_by=recorded_by,
    )
