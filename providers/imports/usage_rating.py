"""Rates bodies of real answers by our reading, our prices and our rating, beside genai-prices.

For whoever doubts a bill: every (seller, surface) that a file names for a body is rated by both at
one moment; they agree to the last digit, or ours says why it does not bill. Needs no database.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache, lru_cache
from typing import Final

import genai_prices
import msgspec
from genai_prices.data import providers as published
from genai_prices.types import Provider as PublishedProvider

from billing import rating
from billing.kinds import ServiceTier
from billing.money import usd
from billing.prices.imports import DatedRates
from billing.prices.price_spans import Dated, spans_of
from billing.rating import Price, PriceNotFound
from billing.usage import CanonicalUsage, UsageError
from providers.market import catalogue
from providers.wires import usage_surfaces

FILE_BYTES_MAX: Final = 256 * 1024 * 1024
# A file names what it likes.
REMEMBERED_MAX: Final = 4_096
SAME: Final = "same"
REFUSED: Final = "not billed"
DIFFERENT: Final = "different"
UNKNOWN: Final = "not sold"
SKIPPED: Final = "skipped"
# genai-prices' names of surfaces -> ours; "default" is the seller's own.
SURFACES: Final = {
    "chat": "chat",
    "responses": "responses",
    "anthropic": "messages",
    "realtime": "realtime",
    "embeddings": "embeddings",
}
OWN_SURFACES: Final = {
    "anthropic": "messages",
    "minimax": "messages",
    "google": "gemini",
    "aws": "converse",
    "cohere": "cohere",
    "openrouter": "responses",
}


class _Extractor(msgspec.Struct):
    provider_id: str
    api_flavor: str = "default"


class _Extracted(msgspec.Struct):
    extractors: list[_Extractor] = []


class BodyRow(msgspec.Struct):
    """One row of a file: an answer, and who may have sent it."""

    body: dict[str, object]
    model: str | None = None
    extracted: list[_Extracted] = []


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row read as one seller's surface. `why` says what kept ours from billing."""

    row: int
    provider: str
    flavor: str
    model: str
    kind: str
    ours: Decimal | None
    theirs: Decimal | None
    why: str = ""


def decode(body: bytes) -> list[BodyRow]:
    """msgspec.MsgspecError where the file is not of that form."""
    return msgspec.json.decode(body, type=list[BodyRow])


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that is rated at no seller, and why at each that it names."""

    row: int
    model: str
    why: str
    kind: str = SKIPPED


def verdicts(rows: Sequence[BodyRow], *, when: datetime) -> Iterator[Verdict | Skipped]:
    """Each row at every seller that it names and that sells its model, or why at none."""
    for number, row in enumerate(rows, start=1):
        pairs = {(e.provider_id, e.api_flavor) for found in row.extracted for e in found.extractors}
        reasons = {pair: _skipped(row, *pair) for pair in sorted(pairs)}
        rated = [pair for pair, why in reasons.items() if not why]
        for provider, flavor in rated:
            yield judge(number, row, provider, flavor, when)
        if not rated:
            said = sorted({f"{provider}: {why}" for (provider, _), why in reasons.items()})
            why = "; ".join(said) or "it names no seller and surface"
            yield Skipped(number, _model_of(row) or "no model", why)


def _skipped(row: BodyRow, provider: str, flavor: str) -> str:
    """Why a row is not rated at a seller; empty where it is."""
    model, seller = _model_of(row), _published(provider)
    if not model:
        return "it names no model"
    if seller is None:
        return "genai-prices knows no such seller"
    if seller.find_model(model) is None:
        return "genai-prices has no such model at this seller"
    if _is_misread(row, flavor):
        return "it has an output, so it is no embedding"
    return ""


def _is_misread(row: BodyRow, flavor: str) -> bool:
    """What has an output is no embedding, whatever else could read its input."""
    usage = row.body.get("usage")
    return flavor == "embeddings" and isinstance(usage, dict) and "completion_tokens" in usage


def tally(found: Sequence[Verdict | Skipped]) -> Mapping[str, int]:
    return Counter(verdict.kind for verdict in found)


def judge(number: int, row: BodyRow, provider: str, flavor: str, when: datetime) -> Verdict:
    model = _model_of(row)
    theirs = _theirs(row, provider, flavor, model, when)
    ours, kind, why = None, REFUSED, ""
    try:
        usage = usage_surfaces.read(provider, surface_of(provider, flavor), row.body)
        ours = usd(rating.rate(usage, _price(provider, model, usage, when)))
        kind = SAME if ours == theirs else DIFFERENT
    except UsageError as problem:
        why = str(problem)
    except PriceNotFound as problem:
        kind, why = UNKNOWN, str(problem)
    return Verdict(number, provider, flavor, model, kind, ours, theirs, why)


def surface_of(provider: str, flavor: str) -> str:
    if flavor == "default":
        return OWN_SURFACES.get(provider, "chat")
    return SURFACES.get(flavor, flavor)


def _model_of(row: BodyRow) -> str:
    named = row.body.get("model") or row.body.get("modelVersion") or row.model or ""
    return str(named).removeprefix("models/")


def _theirs(row: BodyRow, provider: str, flavor: str, model: str, when: datetime) -> Decimal | None:
    """What the library says; None where it cannot read or price it either."""
    seller = _published(provider)
    if seller is None:
        return None
    try:
        _, counts = seller.extract_usage(row.body, api_flavor=flavor)
        found = genai_prices.calc_price(
            counts, model, provider_id=provider, genai_request_timestamp=when
        )
    except (LookupError, ValueError):
        return None
    return found.total_price


@lru_cache(maxsize=REMEMBERED_MAX)
def _published(provider: str) -> PublishedProvider | None:
    return next((each for each in published if each.id == provider), None)


@cache
def _listed() -> Mapping[tuple[str, str], tuple[str, Sequence[DatedRates]]]:
    return {
        (each.provider, each.published.id): (each.sku, each.versions)
        for each in catalogue.listings(published)
    }


def _price(provider: str, model: str, usage: CanonicalUsage, when: datetime) -> Price:
    seller = _published(provider)
    entry = seller.find_model(model) if seller is not None and model else None
    if entry is None or (provider, entry.id) not in _listed():
        raise PriceNotFound(f"{provider} sells no {model or 'unnamed model'} here")
    return rating.choose(
        _in_force(provider, entry.id, when),
        service_tier=ServiceTier.DEFAULT,
        input_tokens=usage.input_tokens,
    )


@lru_cache(maxsize=REMEMBERED_MAX)
def _in_force(provider: str, model_id: str, when: datetime) -> tuple[Price, ...]:
    sku, versions = _listed()[provider, model_id]
    rows = [
        Dated(
            Price(
                version=0,
                sku=sku,
                service_tier=version.service_tier,
                context_over=version.context_over,
                **dict(version.rates.items()),  # type: ignore[arg-type]
            ),
            version.valid_from,
            version.valid_to,
            version.window,
        )
        for version in versions
    ]
    return spans_of(rows, when, when)[0].prices
