"""Dated versions from the bundled price data, against figures read off the published pages."""

from datetime import UTC, datetime

from genai_prices.data import providers as published

from billing.kinds import ServiceTier
from billing.prices.imports import HISTORY_BEGINS, DatedRates
from billing.rates import ALL_DAY
from providers.market.price_schedule import schedule


def versions_of(provider_id: str, model_id: str, **wanted: int) -> list[DatedRates]:
    provider = next(p for p in published if p.id == provider_id)
    model = next(m for m in provider.models if m.id == model_id)
    return [v for v in schedule(model) if all(getattr(v, k) == x for k, x in wanted.items())]


def test_a_price_cut_becomes_two_adjoining_versions() -> None:
    # when
    old, new = versions_of("openai", "o3", service_tier=ServiceTier.DEFAULT)

    # then
    cut = datetime(2025, 6, 10, tzinfo=UTC)
    assert (old.valid_from, old.valid_to) == (HISTORY_BEGINS, cut)
    assert (new.valid_from, new.valid_to) == (cut, None)
    assert (old.rates.input_pico, old.rates.output_pico) == (10_000_000, 40_000_000)
    assert (new.rates.input_pico, new.rates.output_pico) == (2_000_000, 8_000_000)


def test_a_context_tier_is_a_version_of_its_own() -> None:
    # when
    versions = versions_of("google", "gemini-2.5-pro", service_tier=ServiceTier.DEFAULT)

    # then
    assert {v.context_over: v.rates.input_pico for v in versions} == {
        0: 1_250_000,
        200_000: 2_500_000,
    }


def test_service_tiers_have_their_own_prices() -> None:
    # when
    versions = versions_of("openai", "gpt-5")

    # then
    in_force = {v.service_tier: v.rates.input_pico for v in versions if v.valid_to is None}
    assert in_force == {
        ServiceTier.DEFAULT: 1_250_000,
        ServiceTier.FLEX: 625_000,
        ServiceTier.PRIORITY: 2_500_000,
        ServiceTier.BATCH: 625_000,
    }


def test_a_tier_that_is_not_sold_has_no_version() -> None:
    assert versions_of("groq", "llama-3.1-8b-instant", service_tier=ServiceTier.PRIORITY) == []


def test_a_price_by_the_hour_has_windows_for_its_cheaper_hours() -> None:
    # when
    dear, cheap = versions_of("deepseek", "deepseek-reasoner")
    base, *rest = versions_of("deepseek", "deepseek-flash")

    # then
    assert (dear.window, dear.rates.input_pico, dear.rates.output_pico) == (
        ALL_DAY,
        550_000,
        2_190_000,
    )
    assert (str(cheap.window), cheap.rates.input_pico) == ("16:30-00:30 UTC", 135_000)
    assert (base.window, base.rates.input_pico) == (ALL_DAY, 300_000)
    assert [(str(v.window), v.rates.input_pico) for v in rest] == [
        ("04:00-06:00 UTC", 150_000),
        ("10:00-01:00 UTC", 150_000),
    ]


def test_an_unpriced_cache_costs_what_input_costs() -> None:
    # when
    (version,) = versions_of("groq", "llama-3.1-8b-instant")

    # then
    assert version.rates.cache_read_pico == version.rates.input_pico
    assert version.rates.cache_write_1h_pico == version.rates.input_pico
    assert version.rates.input_audio_pico is None


def test_pictures_cost_what_input_costs_where_nothing_else_is_published() -> None:
    # when
    (plain,) = versions_of("anthropic", "claude-sonnet-4-0", service_tier=ServiceTier.DEFAULT)
    (drawn,) = versions_of("openai", "gpt-realtime", service_tier=ServiceTier.DEFAULT)

    # then
    assert (plain.rates.input_pico, plain.rates.input_image_pico) == (3_000_000, 3_000_000)
    assert (drawn.rates.input_pico, drawn.rates.input_image_pico) == (4_000_000, 5_000_000)


def test_a_fee_per_request_is_part_of_the_price() -> None:
    # when
    (version,) = versions_of("perplexity", "sonar")

    # then
    assert version.rates.request_pico == 12_000_000_000  # $12 per thousand


def test_a_model_whose_frames_cost_extra_has_no_price() -> None:
    assert versions_of("google", "gemini-3.1-flash-live-preview") == []


def test_no_token_price_means_no_version_not_a_free_one() -> None:
    # when
    unpriced = [
        model
        for provider in published
        for model in provider.models
        if getattr(model.get_prices(datetime(2026, 11, 1, tzinfo=UTC)), "output_mtok", None) is None
    ]

    # then
    assert len(unpriced) > 100
    assert all(not [v for v in schedule(m) if v.valid_to is None] for m in unpriced)


def test_versions_of_one_slot_never_overlap() -> None:
    for provider in published:
        for model in provider.models:
            slots: dict[tuple[object, ...], list[DatedRates]] = {}
            for version in schedule(model):
                slot = (version.service_tier, version.context_over, version.window)
                slots.setdefault(slot, []).append(version)
            for versions in slots.values():
                for earlier, later in zip(versions, versions[1:], strict=False):
                    assert earlier.valid_to is not None
                    assert earlier.valid_to <= later.valid_from
