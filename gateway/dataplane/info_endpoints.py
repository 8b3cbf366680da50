"""What the data plane answers beside chat: models, the key's own state, liveness, readiness."""

import asyncio
import os
from collections.abc import Mapping

import msgspec
from msgspec import UNSET, UnsetType

from billing import registers
from billing.credit import credit_ends
from billing.holding import holds
from billing.holding.scopes import SpendScope
from billing.money import PICO_PER_NANO, usd_json
from billing.prices.price_spans import lists_at
from billing.rating import Price
from gateway.dataplane import unserved
from gateway.dataplane.auth import Principal
from gateway.dataplane.inbound.client import Client
from gateway.dataplane.plane import Plane
from gateway.dataplane.redis.pipe import NO_ANSWER
from gateway.errors import (
    InvalidApiKey,
    MethodNotAllowed,
    ModelNotFound,
    RouteNotFound,
    Unavailable,
)
from gateway.routing import names, router
from gateway.version import VERSION
from providers.chat import OfferView

JSON = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
MODELS_PATH = "/v1/models"

_encode = msgspec.json.Encoder().encode


class _RateLimit(msgspec.Struct):
    requests: int
    interval: str


class _Credit(msgspec.Struct):
    total: msgspec.Raw
    spent: msgspec.Raw
    held: msgspec.Raw
    left: msgspec.Raw


class _KeyData(msgspec.Struct):
    label: str
    usage: msgspec.Raw | None
    limit: msgspec.Raw | None
    limit_remaining: msgspec.Raw | None
    is_free_tier: bool
    rate_limit: _RateLimit | None
    models: list[str]
    credit: _Credit


class _Key(msgspec.Struct):
    data: _KeyData


class _Pricing(msgspec.Struct):
    prompt: str
    completion: str
    input_cache_read: str


class _Model(msgspec.Struct):
    """In a shape that OpenAI's, Anthropic's and OpenRouter's clients all read."""

    id: str
    name: str
    display_name: str
    owned_by: str
    context_length: int | None
    offers: list[str]
    object: str = "model"
    type: str = "model"
    created: int = 0
    created_at: str = "1970-01-01T00:00:00Z"
    pricing: _Pricing | UnsetType = UNSET


class _Models(msgspec.Struct):
    object: str
    data: list[_Model]
    has_more: bool
    first_id: str | None
    last_id: str | None


async def serve(plane: Plane, client: Client, method: str, path: str) -> None:
    """Answer one of the small pages, or RouteNotFound."""
    if path not in ("/health", "/ready", "/v1/key", MODELS_PATH) and not path.startswith(
        f"{MODELS_PATH}/"
    ):
        raise RouteNotFound(f"There is nothing at {path}.")
    if method not in ("GET", "HEAD"):
        raise MethodNotAllowed("Use GET here.")
    if path == "/health":
        await client.answer(200, JSON, _encode({"status": "ok", "version": VERSION}))
        return
    if path == "/ready":
        reason = plane.unready()
        body = _encode(
            {
                "ready": not reason,
                "reason": reason,
                "process": os.getpid(),
                "open": len(plane.leases),
                "unsettled": plane.settler.waiting,
                "snapshot_ms": plane.snapshots.current.loaded_ms,
            }
        )
        await client.answer(503 if reason else 200, JSON, body)
        return
    principal = await plane.pipeline.authenticate(client)
    await _check_status(plane, principal)
    document: _Key | _Models | _Model
    if path == "/v1/key":
        document = await _key(plane, principal)
    elif path == MODELS_PATH:
        document = _models(plane, principal)
    else:
        document = _model(plane, principal, path.removeprefix(f"{MODELS_PATH}/"))
    await client.answer(200, JSON, _encode(document))


async def _check_status(plane: Plane, principal: Principal) -> None:
    """No hold is placed for these pages, so the key's status is asked for: it holds at once."""
    tag = registers.shard_tag(principal.tenant_id)
    key = registers.key_status_key(tag, principal.tenant_id)
    try:
        status = await plane.pipe.command("HGET", key, str(principal.key_id))
    except NO_ANSWER:
        raise Unavailable("The key cannot be checked now. Try again shortly.") from None
    if status == holds.REVOKED.encode():
        raise InvalidApiKey("This API key was revoked.", code="revoked_api_key")


async def _key(plane: Plane, principal: Principal) -> _Key:
    """OpenRouter's shape: `limit` is the key's lifetime cap, or that of a key that made it where
    less of it remains; the tenant's credit is beside it."""
    tag = registers.shard_tag(principal.tenant_id)
    caps = [
        cap
        for cap in principal.spend
        if cap.kind == "key" and cap.window == registers.LIFETIME and not cap.shadow
    ]
    reads = [_nanos(plane, registers.tenant_key(tag, principal.tenant_id))]
    for cap in caps:
        own = registers.spend_key(
            tag, principal.tenant_id, kind="key", scope=cap.id, bucket=registers.LIFETIME
        )
        reads.append(_nanos(plane, own))
    try:
        tenant, *rest = await asyncio.gather(*reads)
    except NO_ANSWER:
        raise Unavailable("The balance cannot be read now. Try again shortly.") from None
    rpm = [rate.rpm for rate in principal.rates if rate.rpm is not None]
    data = _KeyData(
        label=principal.name,
        usage=next(
            (
                _usd(row["spent"])
                for cap, row in zip(caps, rest, strict=True)
                if cap.id == str(principal.key_id)
            ),
            None,
        ),
        limit=None,
        limit_remaining=None,
        is_free_tier=False,
        rate_limit=_RateLimit(min(rpm), "1m") if rpm else None,
        models=sorted(principal.models_allowed),
        credit=_Credit(
            total=_usd(tenant["credit"]),
            spent=_usd(tenant["spent"]),
            held=_usd(tenant["held"]),
            left=_usd(tenant["credit"] - tenant["spent"] - tenant["held"]),
        ),
    )
    if caps:
        left_nano, limit_nano = min(_remains(plane, *pair) for pair in zip(caps, rest, strict=True))
        data.limit, data.limit_remaining = _usd(limit_nano), _usd(left_nano)
    return _Key(data)


def _remains(plane: Plane, cap: SpendScope, row: Mapping[str, int]) -> tuple[int, int]:
    """What is left of a cap, and how high it is now."""
    is_raised = plane.clock.now_ms() < cap.raised_until_ms
    limit_nano = cap.raised_nano if is_raised else cap.limit_nano
    return max(limit_nano - row["spent"] - row["held"], 0), limit_nano


async def _nanos(plane: Plane, key: str) -> dict[str, int]:
    """The amounts of one register; credit without what has ended."""
    names = ("credit", "spent", "held")
    found = await plane.pipe.command("HMGET", key, *names, *credit_ends.FIELDS)
    nanos = {name: int(value or 0) for name, value in zip(names, found, strict=False)}
    used = nanos["spent"] + nanos["held"]
    nanos["credit"] -= credit_ends.ended_nano(
        *found[len(names) :], used_nano=used, now_ms=plane.clock.now_ms()
    )
    return nanos


def _usd(nano: int) -> msgspec.Raw:
    """A JSON number without loss."""
    return msgspec.Raw(usd_json(nano * PICO_PER_NANO))


def _models(plane: Plane, principal: Principal) -> _Models:
    """Every model that this key could call now, cheapest offer's terms first."""
    rows = [
        _row(plane, principal, model, callable_)
        for model, offers in sorted(plane.snapshots.current.offers_by_model.items())
        if (callable_ := _callable(principal, offers))
    ]
    first_id, last_id = (rows[0].id, rows[-1].id) if rows else (None, None)
    return _Models("list", rows, has_more=False, first_id=first_id, last_id=last_id)


def _model(plane: Plane, principal: Principal, name: str) -> _Model:
    by_model = plane.snapshots.current.offers_by_model
    offers = by_model.named(name)
    callable_ = _callable(principal, offers)
    if not callable_:
        models = unserved.callable_models(by_model, principal.policy, principal.models_allowed)
        raise ModelNotFound(name, nearest=names.nearest(name, models))
    return _row(plane, principal, callable_[0].model, callable_)


def _callable(principal: Principal, offers: tuple[OfferView, ...]) -> list[OfferView]:
    """Those that this key can call now."""
    policy, models = principal.policy, principal.models_allowed
    return [
        offer
        for offer in offers
        if not offer.not_routable and router.refusal_to(offer, policy, models) is None
    ]


def _row(plane: Plane, principal: Principal, model: str, offers: list[OfferView]) -> _Model:
    """Its price is what this key's tenant pays, as it stands on the receipt."""
    now_ms = plane.clock.now_ms()
    lists = lists_at(principal.price_lists, now_ms)
    asked = [(_plain(offer.prices_at(lists, now_ms)), offer) for offer in offers]
    price, cheapest = min(asked, key=_order)
    row = _Model(
        id=model,
        name=model,
        display_name=model,
        owned_by=cheapest.provider,
        context_length=cheapest.context_length or None,
        offers=[offer.sku for offer in offers],
    )
    if price is not None:
        row.pricing = _Pricing(
            prompt=usd_json(price.input_pico).decode(),
            completion=usd_json(price.output_pico).decode(),
            input_cache_read=usd_json(price.cache_read_pico).decode(),
        )
    return row


def _plain(prices: tuple[Price, ...]) -> Price | None:
    return prices[0] if prices else None


def _order(asked: tuple[Price | None, OfferView]) -> tuple[int, str]:
    price, offer = asked
    return (2**62 if price is None else 3 * price.input_pico + price.output_pico, offer.sku)
