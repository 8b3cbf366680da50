"""Existing OpenAI-compatible servers (vLLM, SGLang, TGI, llama.cpp, `transformers serve`).

A pool is a seller of its own, attached by its base URL. It sends no heartbeats; `providers.checks`
asks it, and reads its load where it shows one. Its price is what the operator says, since nobody
measured its engine.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from django.db import transaction

from billing import audit, prices
from billing.money import pico_per_token
from providers import addresses, credentials
from providers.checks import client, root_of
from providers.model_names import creator_of, name_of, title_of
from providers.models import Model, Offer, Provider
from providers.offers import CHAT, headers_for
from providers.snapshot_signal import bump

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,59}")
# What a server may call its models: it becomes part of skus, pages and a response header.
SERVED_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")
MODELS_MAX = 100
CACHED_SHARE = Decimal("0.5")


class PoolRefused(ValueError):
    """What was asked does not fit, or the server did not answer as one of its kind."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Dollars per million tokens; an unstated cache price is half the input price."""

    input_usd: Decimal
    output_usd: Decimal
    cached_usd: Decimal | None = None


class _Entry(msgspec.Struct):
    id: str
    max_model_len: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None


class _Listed(msgspec.Struct):
    data: list[_Entry]


def served_models(*, base_url: str, bearer: str) -> list[tuple[str, int | None]]:
    """What the server lists under /models, with the context length where it says one."""
    headers = headers_for(Provider.Wire.OPENAI, bearer) if bearer else {}
    with client() as http:
        response = http.get(f"{base_url}/models").headers(headers).build().send()
        if response.status != 200:
            raise PoolRefused(f"{base_url}/models answered {response.status}")
        try:
            listed = msgspec.convert(response.json(), _Listed).data[:MODELS_MAX]
        except (msgspec.ValidationError, ValueError):
            raise PoolRefused(f"{base_url}/models is no list of models") from None
    for entry in listed:
        if not SERVED_ID.fullmatch(entry.id):
            raise PoolRefused(f"the server calls a model {entry.id[:100]!r}, which is no name")
    return [(entry.id, entry.max_model_len) for entry in listed]


def named_models(
    names: Sequence[str], *, check_url: str, bearer: str
) -> list[tuple[str, int | None]]:
    """Models that the operator names, of a server that lists none but answers at `check_url`."""
    for name in names[:MODELS_MAX]:
        if not SERVED_ID.fullmatch(name):
            raise PoolRefused(f"{name[:100]!r} is no name of a model")
    headers = headers_for(Provider.Wire.OPENAI, bearer) if bearer else {}
    with client() as http:
        response = http.get(check_url).headers(headers).build().send()
        if response.status != 200:
            raise PoolRefused(f"{check_url} answered {response.status}")
    return [(name, None) for name in names[:MODELS_MAX]]


def attach(
    *,
    name: str,
    base_url: str,
    bearer: str,
    terms: Terms,
    recorded_by: str,
    now: datetime,
    models: Sequence[str] = (),
) -> list[Offer]:
    """Make a pool and an offer for each model that it serves; again: bring it up to date.

    With `models` the server is not asked for its list: `transformers serve` lists its cache of
    downloads there and not the folder it serves. It is then checked at its /health.
    """
    if not NAME.fullmatch(name):
        raise PoolRefused("a pool's name is lower-case letters, digits and dashes")
    checked = addresses.checked_base_url(base_url, network=None)
    if not urlsplit(checked).path:
        checked = f"{checked}/v1"
    check_url = f"{root_of(checked)}/health" if models else ""
    if models:
        served = named_models(models, check_url=check_url, bearer=bearer)
    else:
        served = served_models(base_url=checked, bearer=bearer)
    if not served:
        raise PoolRefused("the server lists no model")
    with transaction.atomic():
        provider = _provider(name, checked, check_url)
        if bearer:
            credentials.store(provider=provider, label="pool", secret=bearer)
        made = [_offer(provider, model, length, now) for model, length in served]
        for offer in made:
            _price(offer, terms, recorded_by, now)
        audit.record(
            actor=recorded_by,
            action="pool.attach",
            subject=provider.slug,
            after={"base_url": checked, "skus": [offer.sku for offer in made]},
            now=now,
        )
        bump()
    return made


def _provider(name: str, base_url: str, check_url: str) -> Provider:
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
        },
    )
    return provider


def _offer(provider: Provider, model_id: str, length: int | None, now: datetime) -> Offer:
    slug = name_of(provider.slug, model_id).slug
    model, _ = Model.objects.get_or_create(
        slug=slug, defaults={"name": title_of(slug), "creator": creator_of(slug)}
    )
    offer, _ = Offer.objects.update_or_create(
        sku=f"{provider.slug}/{model_id}".lower(),
        defaults={
            "provider": provider,
            "model": model,
            "upstream_model": model_id,
            "context_length": length,
            "capabilities": [CHAT],
            "state": Offer.State.LIVE,
            "state_reason": "",
            "state_changed_at": now,
        },
    )
    return offer


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
