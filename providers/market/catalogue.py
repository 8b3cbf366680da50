"""Seeds providers, models, offers and dated prices from the data bundled with genai-prices.

Nothing is fetched. Running it again adds listings that are new and leaves alone what an operator
changed: states, credentials, hand-made prices. Prices are taken over once; what newer data would
change in them is proposed to the operator. What has no token price is listed and says so.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

import genai_prices
from django.db import transaction
from genai_prices.data import providers as published_providers
from genai_prices.types import ModelInfo
from genai_prices.types import Provider as PublishedProvider

from billing.kinds import ServiceTier
from billing.prices import imports as price_import
from billing.prices import proposals as price_proposals
from billing.prices.imports import DatedRates
from providers.market.model_names import Name, creator_of, name_of, title_of
from providers.market.offers import CHAT
from providers.market.price_schedule import schedule
from providers.market.seller_terms import terms_of
from providers.models import Model, Offer, Provider

FAMILY = "genai-prices"
SOURCE = f"{FAMILY} {genai_prices.__version__}"
BATCH_SIZE = 1_000
BATCH_SUFFIX = ":batch"
NOT_CHAT = re.compile(
    r"embed|bge-|gte-|whisper|tts|transcri|speech|audio|voxtral|orpheus|moderation|rerank|ocr|"
    r"realtime|dall-e|image|imagen|sora|veo|lyria|guard|live|sonic|eleven|m2m100|indictrans|"
    r"distilbert|computer-use|instruct-0914|davinci|curie|babbage|^ada$|voyage|titan-embed"
)


@dataclass(slots=True)
class Listing:
    """One entry of the published catalogue, named and priced."""

    provider: str
    published: ModelInfo
    name: Name
    variant: str
    sku: str
    versions: list[DatedRates]


@dataclass(slots=True)
class Seeded:
    """How many rows were made."""

    providers: int = 0
    models: int = 0
    offers: int = 0
    prices: int = 0
    proposed: int = 0
    unpriced: list[str] = field(default_factory=list)


@transaction.atomic
def seed(*, recorded_by: str, now: datetime) -> Seeded:
    """Bring the catalogue up to the bundled data; idempotent."""
    done = Seeded()
    found = list(listings(published_providers))
    done.providers = _seed_providers(published_providers)
    done.models = _seed_models(found)
    done.offers = _seed_offers(found)
    history = {listing.sku: listing.versions for listing in found if listing.versions}
    if price_import.is_known(FAMILY):
        done.proposed = price_proposals.propose(history, source=SOURCE, now=now).made
    else:
        imported = price_import.import_history(history, source=SOURCE, recorded_by=recorded_by)
        done.prices = imported.added
    done.unpriced = [listing.sku for listing in found if not listing.versions]
    return done


def listings(providers: Iterable[PublishedProvider]) -> Iterable[Listing]:
    """Every entry once, with a variant where one seller has the same weights twice."""
    for provider in providers:
        taken: set[tuple[str, str]] = set()
        entries = {model.id: model for model in provider.models}
        for model, name in _distinct(provider):
            if model.id.endswith(BATCH_SUFFIX) and _base(model) in entries:
                continue
            variant = name.variant
            if (name.slug, variant) in taken:
                variant = "-".join(part for part in (variant, name.quantization) if part)
            if (name.slug, variant) in taken:
                variant = re.sub(r"[^a-z0-9.]+", "-", model.id.lower())[:80]
            taken.add((name.slug, variant))
            sku = f"{provider.id}/{model.id}".lower()
            versions = [*schedule(model), *_batch_versions(entries.get(model.id + BATCH_SUFFIX))]
            yield Listing(provider.id, model, name, variant, sku, versions)


def _base(model: ModelInfo) -> str:
    return model.id.removesuffix(BATCH_SUFFIX)


def _batch_versions(model: ModelInfo | None) -> list[DatedRates]:
    """A listing of its own for batches is the same offer in another service tier."""
    versions = schedule(model) if model is not None else []
    return [replace(version, service_tier=ServiceTier.BATCH) for version in versions]


def _distinct(provider: PublishedProvider) -> list[tuple[ModelInfo, Name]]:
    """Without old short ids of a listing that also has its full `author/model` id."""
    named = [(model, name_of(provider.id, model.id)) for model in provider.models]
    full = {name for model, name in named if "/" in model.id}
    if provider.id != "openrouter":
        return named
    return [(model, name) for model, name in named if "/" in model.id or name not in full]


def _seed_providers(published: Iterable[PublishedProvider]) -> int:
    rows = []
    for provider in published:
        terms = terms_of(provider.id)
        rows.append(
            Provider(
                slug=provider.id,
                name=provider.name,
                wire=terms.wire,
                base_url=terms.base_url,
                website=(provider.pricing_urls or [""])[0][:200],
                cancel_stops_billing=terms.cancel_stops_billing,
            )
        )
    return _create(Provider, rows)


def _seed_models(found: Iterable[Listing]) -> int:
    context: dict[str, int | None] = {}
    for listing in found:
        stated = listing.published.context_window
        known = context.get(listing.name.slug)
        context[listing.name.slug] = max(stated or 0, known or 0) or None
    rows = [
        Model(
            slug=slug[:160],
            name=title_of(slug)[:160],
            creator=creator_of(slug),
            context_length=length,
        )
        for slug, length in context.items()
    ]
    return _create(Model, rows)


def _seed_offers(found: Iterable[Listing]) -> int:
    providers = {provider.slug: provider for provider in Provider.objects.all()}
    models = {model.slug: model for model in Model.objects.all()}
    rows = []
    for listing in found:
        terms = terms_of(listing.provider)
        rows.append(
            Offer(
                provider=providers[listing.provider],
                model=models[listing.name.slug[:160]],
                variant=listing.variant,
                sku=listing.sku,
                upstream_model=f"{terms.upstream_prefix}{listing.published.id}{terms.upstream_suffix}",
                context_length=listing.published.context_window,
                quantization=listing.name.quantization,
                capabilities=capabilities_of(listing),
            )
        )
    return _create(Offer, rows)


def capabilities_of(listing: Listing) -> list[str]:
    """Whether it chats. What else a model can do is not in the data, so nothing is ruled out."""
    return [] if NOT_CHAT.search(listing.name.slug) else [CHAT]


def _create(model: type[Provider] | type[Model] | type[Offer], rows: list) -> int:  # type: ignore[type-arg]
    before = model.objects.count()
    model.objects.bulk_create(rows, batch_size=BATCH_SIZE, ignore_conflicts=True)
    return model.objects.count() - before
