"""The boards: kept up to date from rollups, read by pages and by the public API.

A refresh computes again only the boards that can have changed: new rollups, new prices, an offer
that moved, or a window that slid over traffic. A board without traffic is computed when it is read,
and so is one that may not know yet what an offer has become.
What the figures mean is in docs/leaderboards.md, how rows look in docs/leaderboards-api.md.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from django.db.models import Max, Q
from django.utils import timezone

from billing import fault_isolation
from billing.prices import list_prices as price_queries
from providers.boards import home as home_board
from providers.boards import price_moves
from providers.boards import rows as board_rows
from providers.boards.rollup_deltas import start_of
from providers.boards.rows import Mix, Seller
from providers.boards.shapes import Facts, HomeRow, MixFigures, Row
from providers.boards.windows import DEFAULT_WINDOW, WINDOWS, Measured, Window, measured
from providers.market import offers
from providers.models import Leaderboard, MeasurementRollup, Model, Offer, Provider, Worker

# Rows committed by a transaction that began before the last refresh must not be missed.
OVERLAP = timedelta(seconds=15)
KIND_ORDER = (Provider.Kind.IN_HOUSE, Provider.Kind.POOL, Provider.Kind.EXTERNAL)


@dataclass(frozen=True, slots=True)
class Board:
    """One model's ranked offers in one window."""

    model: str
    name: str
    creator: str
    window: str
    computed_at: datetime
    mix: MixFigures
    facts: Facts
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Series:
    """One offer's list price of output over time; each step holds until the next."""

    sku: str
    provider_name: str
    kind: str
    steps: list[tuple[str, int]]


def board(
    model_slug: str,
    window: str = DEFAULT_WINDOW,
    *,
    now: datetime | None = None,
    mix: Mix | None = None,
) -> Board | None:
    """The board of a model, on a viewer's own `mix` where one is given; None where there is no
    such model or window."""
    model = Model.objects.filter(slug=model_slug).first()
    if model is None or window not in WINDOWS:
        return None
    stored = _kept(model, window) if mix is None else None
    if stored is None:
        stored = compute(model, WINDOWS[window], now=now or timezone.now(), mix=mix)
    return _read(model, stored)


def _read(model: Model, stored: Leaderboard) -> Board:
    return Board(
        model=model.slug,
        name=model.name,
        creator=model.creator,
        window=stored.window,
        computed_at=stored.computed_at,
        mix=msgspec.convert(stored.mix, MixFigures),
        facts=msgspec.convert(stored.facts, Facts),
        rows=msgspec.convert(stored.rows, list[Row]),
    )


def _kept(model: Model, window: str) -> Leaderboard | None:
    """The stored board, unless an offer moved since: a refresh stores what it read some time ago,
    and who has seen a new offer must not miss it at the next look."""
    stored = Leaderboard.objects.filter(model=model, window=window).first()
    if stored is None:
        return None
    moved = Offer.objects.filter(model=model, state_changed_at__gte=stored.computed_at - OVERLAP)
    told = {row["offer_id"]: row["state"] for row in stored.rows}
    is_told = all(
        told.get(offer_id, Offer.State.DISABLED) == state
        for offer_id, state in moved.values_list("pk", "state")
    )
    return stored if is_told else None


def home(*, now: datetime | None = None) -> list[HomeRow]:
    """The leading models; see docs/leaderboards-api.md."""
    return home_board.rows(now=now or timezone.now())


def compute(model: Model, window: Window, *, now: datetime, mix: Mix | None = None) -> Leaderboard:
    """A board as it is now, not saved. `mix` stands in for the window's own, as in "my mix"."""
    found = list(
        Offer.objects.filter(model=model)
        .exclude(state=Offer.State.DISABLED)
        .select_related("provider", "model")
    )
    sums = measured(window, now=now, offers=[offer.pk for offer in found])
    mix = mix or board_rows.mix_of(sums.values())
    sellers = _sellers(found, sums, now)
    made = board_rows.rows(sellers, mix)
    facts = Facts(
        requests=sum(row.requests for row in made),
        sellers=len(made),
        routable=sum(row.routable for row in made),
        speculation=board_rows.speculation_fact(sellers, made, mix),
    )
    return Leaderboard(
        model=model,
        window=window.name,
        computed_at=now,
        mix=msgspec.to_builtins(mix.figures),
        facts=msgspec.to_builtins(facts),
        rows=msgspec.to_builtins(made),
    )


def _sellers(found: list[Offer], sums: Mapping[int, Measured], now: datetime) -> list[Seller]:
    listed = price_queries.in_force(now, [offer.sku for offer in found])
    refusals = offers.refusals(found, priced=listed)
    workers = {worker.offer_id: worker for worker in Worker.objects.filter(offer__in=found)}
    own = {offer.sku for offer in found if offer.provider.kind == Provider.Kind.IN_HOUSE}
    moves = price_moves.latest(price for sku, price in listed.items() if sku in own)
    return [
        Seller(
            offer=offer,
            price=listed.get(offer.sku),
            measured=sums.get(offer.pk) or Measured(),
            worker=workers.get(offer.pk),
            not_routable=refusals[offer.pk],
            move=moves.get(offer.sku),
        )
        for offer in found
    ]


def refresh(*, now: datetime) -> int:
    """Compute again every board that can have changed since the last time; returns how many."""
    last = Leaderboard.objects.aggregate(at=Max("computed_at"))["at"]
    touched = _touched_models(last - OVERLAP if last else None)
    due = {(model_id, window) for model_id in touched for window in WINDOWS}
    if last is not None:
        due |= _slid(last, now)
    found = Model.objects.filter(pk__in={model_id for model_id, _ in due}).order_by("pk")

    def make(model: Model) -> int:
        windows = sorted(window for model_id, window in due if model_id == model.pk)
        return _keep([compute(model, WINDOWS[window], now=now) for window in windows])

    with fault_isolation.told_at_the_end():
        made = sum(fault_isolation.each(found, make, name=lambda model: model.slug))
        with fault_isolation.apart("the home board"):
            home_board.refresh(now=now, is_stale=bool(touched))
        return made


def _keep(boards: list[Leaderboard]) -> int:
    kept = Leaderboard.objects.bulk_create(
        boards,
        update_conflicts=True,
        unique_fields=["model", "window"],
        update_fields=["computed_at", "mix", "facts", "rows"],
    )
    return len(kept)


def mark() -> str:
    """Changes whenever a board or the home board was made anew; for pages that follow them."""
    boards = Leaderboard.objects.aggregate(at=Max("computed_at"))["at"]
    return f"{boards}|{home_board.made_at()}"


def _touched_models(since: datetime | None) -> set[int]:
    """Models with new rollups, offers that moved, or in-house offers and new prices of them."""
    if since is None:
        own = Offer.objects.exclude(provider__kind=Provider.Kind.EXTERNAL)
        measured_offers = MeasurementRollup.objects.values("offer")
        return _models_of(own) | _models_of(Offer.objects.filter(pk__in=measured_offers))
    rolled = MeasurementRollup.objects.filter(updated_at__gte=since).values("offer")
    moved = Offer.objects.filter(Q(pk__in=rolled) | Q(state_changed_at__gte=since))
    repriced = price_queries.changed_since(since)
    kept = Leaderboard.objects.values("model")
    return _models_of(moved) | _models_of(Offer.objects.filter(sku__in=repriced, model__in=kept))


def _models_of(found: Iterable[Offer]) -> set[int]:
    return {offer.model_id for offer in found}


def _slid(last: datetime, now: datetime) -> set[tuple[int, str]]:
    """Boards with traffic whose window has moved on by one of its rollups."""
    moved = [
        window.name
        for window in WINDOWS.values()
        if start_of(window.span, last) != start_of(window.span, now)
    ]
    kept = Leaderboard.objects.filter(window__in=moved, facts__requests__gt=0)
    return set(kept.values_list("model_id", "window"))


def price_history(model_slug: str, since: datetime, *, now: datetime | None = None) -> list[Series]:
    """The list price of output over time, one series per offer, in-house first."""
    found = Offer.objects.filter(model__slug=model_slug).exclude(state=Offer.State.DISABLED)
    by_sku = {offer.sku: offer for offer in found.select_related("provider")}
    now = now or timezone.now()
    series = [
        Series(
            sku=sku,
            provider_name=by_sku[sku].provider.name,
            kind=by_sku[sku].provider.kind,
            steps=[
                (max(price.since, since).isoformat(), price.output_pico)
                for price in versions
                if not price.free and price.since <= now
            ],
        )
        for sku, versions in price_queries.history(since, by_sku).items()
    ]
    kept = [one for one in series if one.steps]
    return sorted(kept, key=lambda one: (KIND_ORDER.index(one.kind), one.steps[-1][1], one.sku))
