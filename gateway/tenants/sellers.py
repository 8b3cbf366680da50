"""Teams that sell: what they ask for their offers, when, and the share that the house keeps.

A seller's price is the list price of its offers, as asked or as cost plus a margin. The house's
share is a rule of the cost price list, quantised in versions like every price, so that what buyers
pay is the seller's credit and the house's margin to the pico-dollar.
"""

from datetime import datetime
from typing import Final

from django.db import transaction

from billing import audit
from billing.kinds import ServiceTier
from billing.models import PriceVersion
from billing.prices import lists as price_lists
from billing.prices import versions as prices
from billing.prices.proposals import slot_of
from billing.prices.versions import Slot
from billing.rates import PPM, Rates, Window
from gateway.models import Seller, Team
from providers.models import Offer, Provider

MARGIN_PPM_MAX: Final = 10 * PPM


class SellerRefused(ValueError):
    """What was asked cannot be sold like that; the text is for the person who asked."""


def register(
    *, team: Team, provider: Provider, house_share_ppm: int, actor: str, now: datetime
) -> Seller:
    """Let a team sell as this provider."""
    if provider.kind == Provider.Kind.IN_HOUSE:
        raise SellerRefused("the house's own workers are priced by what they cost")
    if Seller.objects.filter(provider=provider).exists():
        raise SellerRefused("this provider has a seller already")
    prefix = f"{provider.slug}/"
    if provider.offers.exclude(sku__startswith=prefix).exists():
        raise SellerRefused(f"this provider has offers whose sku does not begin with {prefix}")
    with transaction.atomic():
        seller = Seller.objects.create(
            team=team, provider=provider, house_share_ppm=0, registered_at=now
        )
        audit.record(
            actor=actor,
            action="seller.register",
            subject=provider.slug,
            tenant=team.tenant,
            after={"team": team.pk, "house_share_ppm": house_share_ppm},
            now=now,
        )
        set_share(seller=seller, house_share_ppm=house_share_ppm, actor=actor, now=now)
    return seller


def set_share(*, seller: Seller, house_share_ppm: int, actor: str, now: datetime) -> None:
    """What the house keeps of the list price from now on, in parts per million."""
    if type(house_share_ppm) is not int or not 0 <= house_share_ppm <= PPM:
        raise SellerRefused("the house keeps between nothing and everything")
    with transaction.atomic():
        seller.house_share_ppm = house_share_ppm
        seller.save(update_fields=["house_share_ppm"])
        price_lists.set_rule(
            price_list=price_lists.cost_list(),
            pattern=f"{seller.provider.slug}/",
            change_ppm=-house_share_ppm if house_share_ppm else None,
            actor=actor,
            now=now,
            note="share kept by the house",
        )


def ask(
    *,
    seller: Seller,
    offer_id: int,
    rates: Rates,
    margin_ppm: int | None,
    window: Window,
    actor: str,
    now: datetime,
) -> PriceVersion:
    """Sell an offer at these rates, or at these costs plus a margin, all day or in some hours.

    SellerRefused where the offer is another's; PriceRefused where the rates make no sense.
    """
    offer = Offer.objects.filter(pk=offer_id, provider=seller.provider).first()
    if offer is None:
        raise SellerRefused("no such offer")
    asked = rates
    if margin_ppm is not None:
        if type(margin_ppm) is not int or not 0 <= margin_ppm <= MARGIN_PPM_MAX:
            raise SellerRefused("a margin lies between 0 and 1000 %")
        asked = rates.changed(margin_ppm)
    with transaction.atomic():
        _end_other_hours(offer.sku, window, now)
        made = prices.publish(
            sku_code=offer.sku,
            valid_from=now,
            source=f"seller {seller.team.slug}",
            recorded_by=actor,
            window=window,
            note="asking price" if margin_ppm is None else f"cost plus {margin_ppm} ppm",
            **dict(asked.items()),  # type: ignore[arg-type]
        )
        prices.record_set(made, actor=actor, now=now)
    return made


def _end_other_hours(sku: str, window: Window, now: datetime) -> None:
    """An ask replaces the one before it, whatever hours that had."""
    standing = PriceVersion.objects.filter(
        sku__code=sku,
        price_list=None,
        service_tier=ServiceTier.DEFAULT,
        context_over=0,
        during__contains=now,
    )
    for version in standing:
        slot = slot_of(version)
        if slot != Slot(window=window):
            prices.end_slot(sku_code=sku, slot=slot, at=now)
