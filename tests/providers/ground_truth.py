"""Usage blocks of real answers, rated by us and by genai-prices at one moment.

Each row is named the seller that answered it and the surface it answered on. `judge` says whether
both prices are the same, and otherwise for which reason of docs/pricing-differences.md not; the
reason is found in the row and in the published price, and an unexplained difference has none.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Final

import genai_prices
import msgspec
from genai_prices.data import providers as published
from genai_prices.types import (
    ModelPrice,
    PriceCalculation,
    TieredPrices,
)

from billing import rating
from billing.kinds import ServiceTier
from billing.money import usd
from billing.rating import Price, PriceNotFound
from billing.usage import CanonicalUsage, UsageError
from providers.market import catalogue
from providers.market.catalogue import Listing
from providers.wires import usage_surfaces

Row = Mapping[str, Any]
WHEN: Final = datetime(2026, 11, 1, 12, tzinfo=UTC)
ROWS: Final[list[Row]] = msgspec.json.decode(
    (Path(__file__).parents[1] / "data" / "usage_bodies.json").read_bytes()
)
SAME: Final = "same"
UNEXPLAINED: Final = "unexplained"


@dataclass(frozen=True, slots=True)
class Seller:
    """Who answered, on which surface of ours, and what genai-prices calls that surface.

    `extractor` reads the usage where genai-prices has no reading for this seller. `stand_in` is
    the model to rate at where the answer does not name its own.
    """

    provider: str
    surface: str
    flavor: str
    extractor: str = ""
    stand_in: str = ""


@dataclass(frozen=True, slots=True)
class Rated:
    """Both sides of one row; None where a side says that it cannot."""

    seller: Seller
    usage: CanonicalUsage | None
    price: Price | None
    ours: Decimal | None
    theirs: Decimal | None
    refusal: str
    calculation: PriceCalculation | None


ANTHROPIC: Final = Seller("anthropic", "messages", "default")
OPENAI_CHAT: Final = Seller("openai", "chat", "chat")
RESPONSES: Final = Seller("openai", "responses", "responses", stand_in="gpt-5")
GEMINI: Final = Seller("google", "gemini", "default", stand_in="gemini-embedding-001")
CONVERSE: Final = Seller(
    "aws", "converse", "default", stand_in="anthropic.claude-sonnet-4-5-20250929-v1:0"
)
COHERE: Final = Seller("cohere", "cohere", "default", stand_in="command-a")
COHERE_EMBEDDINGS: Final = Seller("cohere", "cohere", "embeddings", stand_in="embed-v4.0")
GROQ: Final = Seller("groq", "chat", "default")
MISTRAL: Final = Seller("mistral", "chat", "default")
# First the surfaces that only one vendor has, told by a name in the answer.
BY_FIELD: Final = {
    "promptTokenCount": GEMINI,
    "inputTokens": CONVERSE,
    "tokens": COHERE,
    "billed_units": COHERE_EMBEDDINGS,
    "cache_read_input_tokens": ANTHROPIC,
}
# Then OpenAI's two, which many vendors speak: told by "<recording> <model>", first match wins.
BY_RECORDING: Final = {
    "responses": {
        r"mantle": Seller("aws", "responses", "responses", extractor="openai"),
        r" openai/": Seller("openrouter", "responses", "default"),
        r"azure": Seller("azure", "responses", "responses"),
        r"": RESPONSES,
    },
    "chat": {
        r" text-embedding-": Seller("openai", "chat", "embeddings"),
        r"mantle": Seller("aws", "chat", "chat", extractor="openai"),
        r"openrouter| qwen/qwen3-30b": Seller("openrouter", "chat", "chat"),
        r"azure": Seller("azure", "chat", "chat"),
        r"heroku": Seller("heroku", "chat", "chat", extractor="openai"),
        r"ollama": Seller("ollama", "chat", "chat", extractor="openai"),
        r"deepseek\.|test_deepseek": Seller("deepseek", "chat", "chat"),
        r"cerebras| zai-glm| gpt-oss-120b": Seller("cerebras", "chat", "chat"),
        r"test_zai": Seller("zai", "chat", "chat"),
        r"huggingface.* deepseek": Seller("huggingface_together", "chat", "chat"),
        r"huggingface.* Qwen": Seller("huggingface_hyperbolic", "chat", "chat"),
        r"huggingface": Seller("huggingface_groq", "chat", "chat"),
        r" gemini-": Seller("google", "chat", "chat"),
        r"mistral| pixtral| magistral| ministral": MISTRAL,
        r"groq| meta-llama/| llama-| openai/gpt-oss| qwen/qwen3-32b": GROQ,
        r"": OPENAI_CHAT,
    },
}


def seller_of(row: Row) -> Seller:
    """Who answered, by the answer's own shape and the recording that it comes from."""
    body = row["body"]
    counts = body.get("usageMetadata") or body.get("usage") or body["meta"]
    for field, seller in BY_FIELD.items():
        if field in counts:
            return seller
    surface = "responses" if "input_tokens" in counts else "chat"
    described = f"{body['file']} {body.get('model')}"
    patterns = BY_RECORDING[surface].items()
    return next(seller for pattern, seller in patterns if re.search(pattern, described))


@cache
def listings() -> Mapping[tuple[str, str], Listing]:
    """Our catalogue's entries by provider and the model's name in genai-prices."""
    return {(each.provider, each.published.id): each for each in catalogue.listings(published)}


def model_of(row: Row, seller: Seller) -> str:
    named = row["body"].get("model") or row["body"].get("modelVersion") or seller.stand_in
    return named.removeprefix("models/")


def sku_of(row: Row) -> str | None:
    """The sku that this row is rated at; None where nobody sells that model here."""
    seller = seller_of(row)
    provider = next((p for p in published if p.id == seller.provider), None)
    model = provider.find_model(model_of(row, seller)) if provider is not None else None
    listing = listings().get((seller.provider, model.id)) if model is not None else None
    return listing.sku if listing is not None else None


def rated(row: Row, prices: Mapping[str, Sequence[Price]]) -> Rated:
    """The row's price by `prices` (sku -> its versions) and by genai-prices at WHEN."""
    seller = seller_of(row)
    calculation = _theirs(row, seller)
    usage = price = ours = None
    refusal = ""
    try:
        usage = usage_surfaces.read(seller.provider, seller.surface, row["body"])
        versions = prices.get(sku_of(row) or "", ())
        price = rating.choose(
            versions, service_tier=ServiceTier.DEFAULT, input_tokens=usage.input_tokens
        )
        ours = usd(rating.rate(usage, price))
    except (UsageError, PriceNotFound) as problem:
        refusal = str(problem)
    theirs = calculation.total_price if calculation is not None else None
    return Rated(seller, usage, price, ours, theirs, refusal, calculation)


def _theirs(row: Row, seller: Seller) -> PriceCalculation | None:
    provider = next(p for p in published if p.id == (seller.extractor or seller.provider))
    _, counts = provider.extract_usage(row["body"], api_flavor=seller.flavor)
    try:
        return genai_prices.calc_price(
            counts,
            model_of(row, seller),
            provider_id=seller.provider,
            genai_request_timestamp=WHEN,
        )
    except LookupError:
        return None


def judge(row: Row, both: Rated) -> str:
    """SAME, the name of a documented reason, or UNEXPLAINED."""
    if both.ours is not None and both.ours == both.theirs:
        return SAME
    reasons = [reason for reason, holds in REASONS.items() if holds(row, both)]
    return reasons[0] if reasons else UNEXPLAINED


def _not_in_the_catalogue(row: Row, both: Rated) -> bool:
    return both.calculation is None and sku_of(row) is None


def _borrowed_price(row: Row, both: Rated) -> bool:
    if both.calculation is None or sku_of(row) is not None:
        return False
    sellers = (p for p in published if p.id == both.seller.provider)
    return all(both.calculation.model not in seller.models for seller in sellers)


def _without_a_price(_: Row, both: Rated) -> bool:
    """The library's answer to a model that has no price is zero dollars."""
    return both.theirs == 0 and both.ours is None and not stated(both.calculation)


def _embeddings(_: Row, both: Rated) -> bool:
    """A price for input and none for output: not sold by a gateway for chat."""
    prices = stated(both.calculation)
    return both.ours is None and "input_mtok" in prices and "output_mtok" not in prices


def _wrong_total(row: Row, both: Rated) -> bool:
    counts = row["body"].get("usage", {})
    parts = counts.get("prompt_tokens", 0) + counts.get("completion_tokens", 0)
    contradicts = counts.get("total_tokens", parts) != parts
    return both.refusal.startswith("total_tokens is") and contradicts


def _searches(row: Row, both: Rated) -> bool:
    tools = row["body"].get("usage", {}).get("server_tool_use") or {}
    searched = tools.get("web_search_requests", 0) > 0
    return both.refusal == "searches have no price" and searched


def _vendors_tools(row: Row, both: Rated) -> bool:
    calls = row["body"].get("usage", {}).get("server_tool_use_details") or {}
    ran = calls.get("tool_calls_executed", 0) > 0
    return both.refusal == "citations, searches and tools of the vendor have no price" and ran


def _pictures_out(row: Row, both: Rated) -> bool:
    counts = row["body"].get("usageMetadata", {}).get("candidatesTokensDetails", [])
    drawn = any(c["modality"] == "IMAGE" and c["tokenCount"] for c in counts)
    return both.refusal == "pictures in the output have no price" and drawn


def _unpriced_audio(_: Row, both: Rated) -> bool:
    """The library charges what text costs where a model has no price for sound."""
    unpriced = "input_audio_mtok" not in stated(both.calculation)
    return both.refusal.startswith("audio input has no price") and unpriced


def _another_models_pass(row: Row, both: Rated) -> bool:
    foreign = any("model" in each for each in _passes(row))
    return both.refusal == "passes of type advisor_message have no price" and foreign


def _several_passes(row: Row, both: Rated) -> bool:
    """Each pass alone costs the same at both; the library prices the last one only."""
    passes = _passes(row)
    if len(passes) < 2 or both.calculation is None:
        return False
    alone = [_theirs({"body": {**row["body"], "usage": each}}, both.seller) for each in passes]
    return both.ours == sum(each.total_price for each in alone if each is not None)


def _passes(row: Row) -> list[dict[str, Any]]:
    passes: list[dict[str, Any]] = row["body"].get("usage", {}).get("iterations", [])
    return passes


def stated(calculation: PriceCalculation | None) -> Mapping[str, Decimal | TieredPrices]:
    """The prices that are published for what was calculated."""
    return published_prices(calculation.model_price) if calculation is not None else {}


def published_prices(price: ModelPrice) -> Mapping[str, Decimal | TieredPrices]:
    return {key: value for key, value in price.__dict__.items() if value is not None}


REASONS: Final = {
    "not in the catalogue": _not_in_the_catalogue,
    "another seller's price": _borrowed_price,
    "no price at all": _without_a_price,
    "embeddings": _embeddings,
    "wrong total": _wrong_total,
    "searches": _searches,
    "tools of the vendor": _vendors_tools,
    "pictures in the output": _pictures_out,
    "audio at the text price": _unpriced_audio,
    "a pass by another model": _another_models_pass,
    "several passes": _several_passes,
}
