"""Offers as the router sees them, and the one place that moves an offer between states.

`views` opens credentials and joins the prices in force; what it returns must never be logged.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q

from billing import audit
from billing.prices import price_books
from billing.prices.price_spans import PriceBook
from providers.chat import OfferView, WireName
from providers.market import credentials
from providers.models import Credential, Offer, Provider, Worker
from providers.wires.registry import wire_for

# A data plane that cannot load prices for longer than this sells nothing more.
PRICED_AHEAD = timedelta(days=2)
ANTHROPIC_VERSION = "2023-06-01"
# What a chat call can be sent to; offers without it are listed, never routed.
CHAT = "chat"

NO_PRICE = "no price in force"
NO_CREDENTIAL = "no credential"
CREDENTIAL_REFUSED = "its credential was refused"
NO_WIRE = "this provider's API is not spoken yet"
NOT_CHAT = "not a chat model"
OFF = "switched off by the operator"
# How often an offer that its checks removed is asked again (`check_offers`).
CHECKED_EVERY_MS = 10_000


@dataclass(frozen=True, slots=True)
class _Access:
    """How an offer is reached, or why it is not. `version` is another one for each credential."""

    base_url: str = ""
    headers: Mapping[str, str] | None = None
    refusal: str = ""
    version: str = ""


def views(now: datetime) -> list[OfferView]:
    """Every offer of the catalogue; those that cannot be called say why in `not_routable`."""
    books = price_books.books(now, now + PRICED_AHEAD)
    secrets = credentials.active()
    workers = {worker.offer_id: worker for worker in Worker.objects.all()}
    offers = Offer.objects.select_related("provider", "model").order_by("pk")
    headers: dict[int, _Access] = {}
    return [_view(offer, books.get(offer.sku), workers, secrets, headers) for offer in offers]


def refusals(offers: Iterable[Offer], *, priced: Container[str]) -> dict[int, str]:
    """Why each of these offers cannot be called, in words; empty where it can."""
    secrets = credentials.active()
    workers = {worker.offer_id: worker for worker in Worker.objects.all()}
    cache: dict[int, _Access] = {}
    return {
        offer.pk: _refusal(
            offer, _access(offer, workers, secrets, cache), is_priced=offer.sku in priced
        )
        or _absence(offer)
        for offer in offers
    }


def _view(
    offer: Offer,
    book: PriceBook | None,
    workers: Mapping[int, Worker],
    secrets: Mapping[int, Credential],
    cache: dict[int, _Access],
) -> OfferView:
    access = _access(offer, workers, secrets, cache)
    refusal = _refusal(offer, access, is_priced=book is not None)
    absence = _absence(offer)
    context_length = offer.context_length or offer.model.context_length or 0
    output_max = offer.max_output_tokens or 0
    return OfferView(
        id=offer.pk,
        sku=offer.sku,
        provider=offer.provider.slug,
        provider_name=offer.provider.name,
        model=offer.model.slug,
        upstream_model=offer.upstream_model,
        wire=wire_of(offer.provider),
        base_url=access.base_url,
        headers=access.headers or {},
        context_length=context_length,
        max_output_tokens=min(output_max, context_length) if context_length else output_max,
        prices=() if book is None else book.opening(),
        in_house=offer.provider.kind != Provider.Kind.EXTERNAL,
        demoted=offer.state == Offer.State.DEMOTED,
        capabilities=frozenset(offer.capabilities),
        quantization=offer.quantization,
        cancel_stops_billing=offer.provider.cancel_stops_billing,
        pool=offer.provider.kind == Provider.Kind.POOL,
        salted=offer.provider.kind == Provider.Kind.IN_HOUSE or bool(offer.provider.salted),
        not_routable=refusal or absence,
        returns_ms=CHECKED_EVERY_MS if absence and not refusal else 0,
        book=None if book is None or book.is_plain else book,
        generation=_generation(offer, access),
    )


def _generation(offer: Offer, access: _Access) -> str:
    """Another one wherever something was changed that an earlier failure may have been due to."""
    facts = (
        access.base_url,
        access.version,
        offer.provider.wire,
        offer.upstream_model,
        offer.context_length or offer.model.context_length,
        offer.max_output_tokens,
        offer.state_changed_at,
    )
    return "|".join(map(str, facts))


def _refusal(offer: Offer, access: _Access, *, is_priced: bool) -> str:
    """Why it cannot be called until somebody acts."""
    if offer.state == Offer.State.DISABLED or not offer.provider.enabled:
        return offer.state_reason or OFF
    if CHAT not in offer.capabilities:
        return NOT_CHAT
    if not is_priced:
        return NO_PRICE
    return access.refusal


def _absence(offer: Offer) -> str:
    """Why it cannot be called until its next check finds it again."""
    return f"removed: {offer.state_reason}" if offer.state == Offer.State.REMOVED else ""


def _access(
    offer: Offer,
    workers: Mapping[int, Worker],
    secrets: Mapping[int, Credential],
    cache: dict[int, _Access],
) -> _Access:
    if offer.provider.kind == Provider.Kind.IN_HOUSE:
        return _worker_access(workers.get(offer.pk))
    return _provider_access(offer, secrets, cache)


def _worker_access(worker: Worker | None) -> _Access:
    if worker is None:
        return _Access(refusal="no worker has registered for this offer")
    try:
        bearer = credentials.decrypt(worker.bearer_ciphertext)
    except credentials.CredentialUnreadable as problem:
        return _Access(refusal=str(problem))
    return _Access(
        base_url=worker.base_url,
        headers=headers_for(Provider.Wire.OPENAI, bearer),
        version=str(worker.registered_at),
    )


def _provider_access(
    offer: Offer, secrets: Mapping[int, Credential], cache: dict[int, _Access]
) -> _Access:
    provider = offer.provider
    if provider.pk not in cache:
        cache[provider.pk] = _open(provider, secrets.get(provider.pk))
    access = cache[provider.pk]
    if offer.base_url and not access.refusal:
        return replace(access, base_url=offer.base_url)
    return access


def _open(provider: Provider, credential: Credential | None) -> _Access:
    if not provider.wire:
        return _Access(refusal=NO_WIRE)
    if credential is None:
        if provider.kind == Provider.Kind.POOL:
            return _Access(base_url=provider.base_url, headers={})
        return _Access(refusal=NO_CREDENTIAL)
    if credential.dead_reason:
        return _Access(refusal=f"{CREDENTIAL_REFUSED}: {credential.dead_reason}")
    try:
        secret = credentials.decrypt(credential.ciphertext)
    except credentials.CredentialUnreadable as problem:
        return _Access(refusal=str(problem))
    return _Access(
        base_url=provider.base_url,
        headers=headers_for(provider.wire, secret),
        version=f"credential {credential.pk}",
    )


def wire_of(provider: Provider) -> WireName:
    return "anthropic" if provider.wire == Provider.Wire.ANTHROPIC else "openai"


def models_url(provider: Provider) -> str:
    """Where this provider lists its models, in its own wire."""
    return wire_for(wire_of(provider)).models_url(provider.base_url)


def headers_for(wire: str, secret: str) -> dict[str, str]:
    """The authorisation headers of a vendor's dialect."""
    if wire == Provider.Wire.ANTHROPIC:
        return {"x-api-key": secret, "anthropic-version": ANTHROPIC_VERSION}
    return {"authorization": f"Bearer {secret}"}


def salt(provider_id: int) -> None:
    """From now on each tenant's calls of this seller carry a salt of its own."""
    Provider.objects.filter(pk=provider_id).update(salted=True)


def set_state(*, offer_id: int, state: str, reason: str, now: datetime) -> bool:
    """Move an offer to a state unless it is there or an operator disabled it; True if it moved."""
    moved = (
        Offer.objects.filter(pk=offer_id)
        .exclude(Q(state=state) | Q(state=Offer.State.DISABLED))
        .update(state=state, state_reason=reason[:200], state_changed_at=now)
    )
    return bool(moved)


def set_enabled(*, offer: Offer, enabled: bool, actor: str, now: datetime) -> None:
    """An operator's switch; enabling an offer that was removed lets the next check decide."""
    before = {"state": str(offer.state)}
    offer.state = Offer.State.LIVE if enabled else Offer.State.DISABLED
    offer.state_reason = "" if enabled else f"switched off by {actor}"[:200]
    offer.state_changed_at = now
    with transaction.atomic():
        offer.save(update_fields=["state", "state_reason", "state_changed_at"])
        audit.record(
            actor=actor,
            action="offer.switch",
            subject=offer.sku,
            before=before,
            after={"state": str(offer.state)},
            now=now,
        )
