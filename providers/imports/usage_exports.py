"""The rows of usage exports: which columns tell whose export it is, and what one row says. Pure.

Counts are made canonical and inclusive by the vendor's convention, sums exact. A bill's reader
takes a row apart by the same columns: there sums and counts may be negative, in any currency.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final

import msgspec

from billing.money import PICO_PER_USD
from billing.usage import CanonicalUsage
from providers.market.model_names import LITELLM_SELLERS

COUNT: Final = re.compile(r"-?[0-9]{1,15}(\.0+)?")
MONEY: Final = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,20})?([eE]-[0-9]{1,2})?")
CURRENCY_COLUMNS: Final = ("currency", "amount_currency", "cost_currency")
NAME: Final = re.compile(r"[\x21-\x7e]{1,200}")
SECONDS: Final = re.compile(r"[0-9]{9,10}")
Row = Mapping[str, object]


class BadRow(ValueError):
    """A row that cannot be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Taken:
    provider: str
    model: str
    usage: CanonicalUsage
    requests: int
    paid_pico: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A vendor's export: known by the columns that it always has. Of `sums` and `days` the first
    that says something counts; `objection`: why a row is nothing one would pay for elsewhere."""

    name: str
    columns: frozenset[str]
    aggregated: bool
    seller: Callable[[Row], str]
    model: Callable[[Row], str]
    counts: Callable[[Row], CanonicalUsage]
    requests: Callable[[Row], int]
    sums: tuple[str, ...]
    days: tuple[str, ...]
    objection: Callable[[Row], str | None] = lambda _: None

    def take(self, row: Row) -> Taken:
        """What the row says was used; BadRow or UsageError where that is nothing to be priced."""
        if wrong := self.objection(row):
            raise BadRow(wrong)
        if (currency := currency_of(row)) != "USD":
            raise BadRow(f"not in US dollars: {currency.lower()[:10]!r}")
        usage, requests = self.counts(row), self.requests(row)
        usage.check()
        paid = amount(row, *self.sums)
        if requests < 0 or (paid is not None and paid < 0):
            raise BadRow("a row that takes something back")
        return Taken(
            provider=self.seller(row),
            model=self.model(row),
            usage=usage,
            requests=requests,
            paid_pico=None if paid is None else int(paid * PICO_PER_USD),
        )


def _count(row: Row, *names: str, default: int | None = None) -> int:
    """The first of these columns that has a value, as a count."""
    for name in names:
        value = row.get(name)
        if value is None or value == "":
            continue
        text = str(value).strip()
        if isinstance(value, bool) or not COUNT.fullmatch(text):
            raise BadRow(f"{name} is not a count: {text[:40]!r}")
        return int(text.partition(".")[0])
    if default is None:
        raise BadRow(f"{names[0]} is missing")
    return default


def amount(row: Row, *names: str) -> Decimal | None:
    """What the first of these columns that has a value says; None where all are empty."""
    for name in names:
        value = row.get(name)
        if value is None or value == "":
            continue
        text = str(value).strip().replace("$", "", 1)
        if isinstance(value, bool) or not MONEY.fullmatch(text):
            raise BadRow(f"{name} is not a sum of money: {text[:40]!r}")
        return Decimal(text)
    return None


def _model(row: Row, *names: str) -> str:
    text = next((str(row[name]).strip() for name in names if row.get(name)), "")
    if not NAME.fullmatch(text):
        raise BadRow(f"{names[0]} is not a model: {text[:40]!r}")
    return text.lower()


def currency_of(row: Row) -> str:
    """As the row names it; dollars where it names none."""
    named = (str(row[name]).strip().upper() for name in CURRENCY_COLUMNS if row.get(name))
    return next((name for name in named if name), "USD")


def day_of(row: Row, *names: str) -> date | None:
    """The day of the first of these columns that has one, as a date, a moment or Unix seconds. A
    moment with an offset is of the day that it names there: so a seller's months stay apart."""
    for name in names:
        text = str(row.get(name) or "").strip()
        if SECONDS.fullmatch(text):
            return datetime.fromtimestamp(int(text), tz=UTC).date()
        if text:
            try:
                return datetime.fromisoformat(text).date()
            except ValueError:
                continue
    return None


def _openai(row: Row) -> CanonicalUsage:
    """Every part stands inside its parent."""
    return CanonicalUsage(
        input_tokens=_count(row, "input_tokens", "n_context_tokens_total"),
        output_tokens=_count(row, "output_tokens", "n_generated_tokens_total"),
        cache_read_tokens=_count(row, "input_cached_tokens", default=0),
        input_audio_tokens=_count(row, "input_audio_tokens", default=0),
        output_audio_tokens=_count(row, "output_audio_tokens", default=0),
    )


def _anthropic(row: Row) -> CanonicalUsage:
    """What was read from a cache or written to one stands beside the rest."""
    reads = _count(row, "usage_input_tokens_cache_read", default=0)
    short = _count(row, "usage_input_tokens_cache_write_5m", default=0)
    long = _count(row, "usage_input_tokens_cache_write_1h", default=0)
    return CanonicalUsage(
        input_tokens=_count(row, "usage_input_tokens_no_cache") + reads + short + long,
        output_tokens=_count(row, "usage_output_tokens"),
        cache_read_tokens=reads,
        cache_write_5m_tokens=short,
        cache_write_1h_tokens=long,
    )


def _searches(row: Row) -> str | None:
    if _count(row, "web_search_count", default=0):
        return "searches have no price here"
    return None


def _openrouter(row: Row) -> CanonicalUsage:
    return CanonicalUsage(
        input_tokens=_count(row, "tokens_prompt", "prompt_tokens"),
        output_tokens=_count(row, "tokens_completion", "completion_tokens"),
        cache_read_tokens=_count(row, "tokens_cached", default=0),
        reasoning_tokens=_count(row, "tokens_reasoning", "reasoning_tokens", default=0),
    )


def _cancelled(row: Row) -> str | None:
    if str(row.get("cancelled") or "").lower() == "true" and not row.get("tokens_completion"):
        return "cancelled before anything came"
    return None


def _litellm(row: Row) -> CanonicalUsage:
    return CanonicalUsage(
        input_tokens=_count(row, "prompt_tokens"),
        output_tokens=_count(row, "completion_tokens"),
        cache_read_tokens=_cached(row),
    )


def _failed(row: Row) -> str | None:
    if str(row.get("status") or "success").lower() not in ("success", "200"):
        return "the request failed"
    return None


def _litellm_seller(row: Row) -> str:
    seller = _litellm_prefix(row)
    return LITELLM_SELLERS.get(seller, seller)[:80]


def _litellm_model(row: Row) -> str:
    return _model(row, "model", "model_group").removeprefix(f"{_litellm_prefix(row)}/")


def _litellm_prefix(row: Row) -> str:
    seller = str(row.get("custom_llm_provider") or "").lower()
    name = _model(row, "model", "model_group")
    return seller if seller or "/" not in name else name.partition("/")[0]


def _cached(row: Row) -> int:
    """LiteLLM keeps the vendor's usage in its metadata, as an object or as text of one."""
    metadata = row.get("metadata")
    if isinstance(metadata, str):
        try:
            metadata = msgspec.json.decode(metadata)
        except (msgspec.DecodeError, RecursionError):
            return 0
    found: object = metadata
    for name in ("usage_object", "prompt_tokens_details"):
        found = found.get(name) if isinstance(found, dict) else None
    return _count(found, "cached_tokens", default=0) if isinstance(found, dict) else 0


LITELLM: Final = Format(
    name="LiteLLM spend logs",
    columns=frozenset({"spend", "prompt_tokens", "completion_tokens"}),
    aggregated=False,
    seller=_litellm_seller,
    model=_litellm_model,
    counts=_litellm,
    requests=lambda _: 1,
    sums=("spend",),
    days=("startTime", "starttime", "start_time", "date"),
    objection=_failed,
)


def _openrouter_format(name: str, *columns: str, aggregated: bool) -> Format:
    return Format(
        name=name,
        columns=frozenset({"model_permaslug", *columns}),
        aggregated=aggregated,
        seller=lambda _: "openrouter",
        model=lambda row: _model(row, "model_permaslug", "model"),
        counts=_openrouter,
        requests=lambda row: _count(row, "requests", default=1),
        sums=("cost_total", "usage"),
        days=("created_at", "date"),
        objection=_cancelled,
    )


def _openai_format(name: str, *columns: str) -> Format:
    return Format(
        name=name,
        columns=frozenset(columns),
        aggregated=True,
        seller=lambda _: "openai",
        model=lambda row: _model(row, "model", "snapshot_id"),
        counts=_openai,
        requests=lambda row: _count(row, "num_model_requests", "n_requests", default=1),
        sums=("amount_value", "cost", "cost_usd"),
        days=("start_time_iso", "date", "start_time", "timestamp"),
    )


FORMATS: Final = (
    Format(
        name="Anthropic usage CSV",
        columns=frozenset({"model_version", "usage_input_tokens_no_cache", "usage_output_tokens"}),
        aggregated=True,
        seller=lambda _: "anthropic",
        model=lambda row: _model(row, "model_version"),
        counts=_anthropic,
        requests=lambda _: 0,  # not exported
        sums=("cost", "cost_usd"),
        days=("usage_date_utc", "date"),
        objection=_searches,
    ),
    _openrouter_format(
        "OpenRouter activity CSV", "tokens_prompt", "tokens_completion", aggregated=False
    ),
    _openrouter_format(
        "OpenRouter activity by day", "prompt_tokens", "completion_tokens", aggregated=True
    ),
    LITELLM,
    _openai_format("OpenAI usage CSV", "model", "input_tokens", "output_tokens"),
    _openai_format(
        "OpenAI usage CSV, older form",
        "snapshot_id",
        "n_context_tokens_total",
        "n_generated_tokens_total",
    ),
)
