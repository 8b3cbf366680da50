"""Every priced entry of the catalogue against genai-prices' own answer at one moment.

What the import makes of a published price (tiers of context and service, dates, units) is compared
by what a request costs, in each of three context tiers; the counts are exact.
"""

from collections import Counter
from collections.abc import Mapping
from decimal import Decimal

import msgspec
from genai_prices.data import providers as published
from genai_prices.types import ModelInfo, TieredPrices, Usage

from billing import rating
from billing.kinds import ServiceTier
from billing.money import PICO_PER_TOKEN_PER_USD_PER_MILLION, usd
from billing.prices.price_spans import Dated, spans_of
from billing.rating import Price
from billing.usage import CanonicalUsage
from providers.market.catalogue import BATCH_SUFFIX, Listing
from providers.market.price_schedule import CONTEXTS
from tests.providers import ground_truth
from tests.providers.ground_truth import SAME, UNEXPLAINED, WHEN, listings

PROVIDERS = {provider.id: provider for provider in published}
MODELS = {(p.id, model.id): model for p in published for model in p.models}
# One request that uses every text rate, in each of three context tiers.
SIZES = (1_000, 150_000, 300_000)
PARTS = CanonicalUsage(
    input_tokens=0,
    output_tokens=777,
    cache_read_tokens=100,
    cache_write_5m_tokens=50,
    cache_write_1h_tokens=30,
    reasoning_tokens=111,
)


def test_every_price_of_the_catalogue_is_imported_to_the_last_digit() -> None:
    # when
    reasons: Counter[str] = Counter()
    for listing in listings().values():
        tiers = {price.service_tier for price in _in_force(listing)}
        for tier in tiers:
            for size in SIZES:
                reasons[_compared(listing, ServiceTier(tier), size)] += 1

    # then
    assert dict(reasons) == {
        SAME: 6_198,
        "finer than a pico-dollar": 69,
    }


def _compared(listing: Listing, tier: ServiceTier, size: int) -> str:
    """Ours against theirs for one request of that size; both of them right or known why not."""
    usage = msgspec.structs.replace(PARTS, input_tokens=size)
    versions = [price for price in _in_force(listing) if price.service_tier == tier]
    ours = usd(rating.rate(usage, rating.choose(versions, service_tier=tier, input_tokens=size)))
    model, context = listing.published, CONTEXTS[tier]
    own = MODELS.get((listing.provider, model.id + BATCH_SUFFIX))
    if tier == ServiceTier.BATCH and own is not None:
        model, context = own, {}
    theirs = _their_price(model, listing.provider, size, context)
    if ours == theirs:
        return SAME
    finest = Decimal(size + PARTS.output_tokens) / 2
    if _finer_than_pico(model) and abs(ours - theirs) <= usd(finest):
        return "finer than a pico-dollar"
    return f"{UNEXPLAINED}: {listing.sku} {tier.label} {size}: {ours} {theirs}"


def _their_price(
    model: ModelInfo, provider_id: str, size: int, context: Mapping[str, str]
) -> Decimal:
    usage = Usage(
        input_tokens=size,
        output_tokens=PARTS.output_tokens,
        cache_read_tokens=PARTS.cache_read_tokens,
        cache_write_tokens=PARTS.cache_write_5m_tokens + PARTS.cache_write_1h_tokens,
        cache_write_1h_tokens=PARTS.cache_write_1h_tokens,
        output_reasoning_tokens=PARTS.reasoning_tokens,
    )
    calculation = model.calc_price(
        usage, PROVIDERS[provider_id], genai_request_timestamp=WHEN, price_context=context
    )
    return calculation.total_price


def _finer_than_pico(model: ModelInfo) -> bool:
    """A rate that is no whole number of pico-dollars per token: noise of a binary fraction."""
    rates = ground_truth.published_prices(model.get_prices(WHEN)).values()
    plain = [rate for rate in rates if not isinstance(rate, TieredPrices)]
    return any(rate * PICO_PER_TOKEN_PER_USD_PER_MILLION % 1 for rate in plain)


def _in_force(listing: Listing) -> tuple[Price, ...]:
    """What the import's versions say at WHEN, as a price book reads them."""
    rows = [
        Dated(
            Price(
                version=0,
                sku=listing.sku,
                service_tier=version.service_tier,
                context_over=version.context_over,
                **dict(version.rates.items()),  # type: ignore[arg-type]
            ),
            version.valid_from,
            version.valid_to,
            version.window,
        )
        for version in listing.versions
    ]
    return spans_of(rows, WHEN, WHEN)[0].prices
