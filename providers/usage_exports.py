"""The rows of usage exports: which columns tell whose export it is, and what one row says. Pure.

Counts are made canonical and inclusive by the vendor's convention, sums exact.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from billing.money import PICO_PER_USD
from billing.usage import CanonicalUsage
from providers.model_names import LITELLM_SELLERS

COUNT: Final = re.compile(r"[0-9]{1,15}(\.0+)?")
MONEY: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,20})?([eE]-[0-9]{1,2})?")
NAME: Final = re.compile(r"[\x21-\x7e]{1,200}")
SECONDS: Final = re.compile(r"[0-9]{9,10}")
Row = Mapping[str, Any]


class BadRow(ValueError):
    """A row that cannot be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Taken:
    provider: str
    model: str
    usage: CanonicalUsage
    requests: int
    paid_pico: int | None
    day: date | None


@dataclass(frozen=True, slots=True)
class Format:
    """A vendor's export: known by the columns that it always has."""

    name: str
    columns: frozenset[str]
    aggregated: bool
    take: Callable[[Row], Taken]


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


def _dollars(row: Row, *names: str) -> int | None:
    """The sum of these columns in pico-dollars; None where all are empty."""
    values = [(name, row[name]) for name in names if row.get(name) not in (None, "")]
    if not values:
        return None
    total = Decimal()
    for name, value in values:
        text = str(value).strip().removeprefix("$")
        if isinstance(value, bool) or not MONEY.fullmatch(text):
            raise BadRow(f"{name} is not a sum of dollars: {text[:40]!r}")
        total += Decimal(text)
    return int(total * PICO_PER_USD)


def _model(row: Row, *names: str) -> str:
    text = next((str(row[name]).strip() for name in names if row.get(name)), "")
    if not NAME.fullmatch(text):
        raise BadRow(f"{names[0]} is not a model: {text[:40]!r}")
    return text.lower()


def _check_currency(row: Row) -> None:
    currency = str(row.get("currency") or "usd").strip().lower()
    if currency != "usd":
        raise BadRow(f"not in US dollars: {currency[:10]!r}")


def _day(row: Row, *names: str) -> date | None:
    """The day of the first of these columns that has one, as a date, a moment or Unix seconds."""
    for name in names:
        text = str(row.get(name) or "").strip()
        if SECONDS.fullmatch(text):
            return datetime.fromtimestamp(int(text), tz=UTC).date()
        if text:
            try:
                moment = datetime.fromisoformat(text)
            except ValueError:
                continue
            return (moment.astimezone(UTC) if moment.tzinfo else moment).date()
    return None


def _openai(row: Row) -> Taken:
    """Every part stands inside its parent."""
    _check_currency(row)
    return Taken(
        provider="openai",
        model=_model(row, "model", "snapshot_id"),
        usage=CanonicalUsage(
            input_tokens=_count(row, "input_tokens", "n_context_tokens_total"),
            output_tokens=_count(row, "output_tokens", "n_generated_tokens_total"),
            cache_read_tokens=_count(row, "input_cached_tokens", default=0),
            input_audio_tokens=_count(row, "input_audio_tokens", default=0),
            output_audio_tokens=_count(row, "output_audio_tokens", default=0),
        ),
        requests=_count(row, "num_model_requests", "n_requests", default=1),
        paid_pico=_dollars(row, "amount_value", "cost_usd"),
        day=_day(row, "start_time_iso", "date", "start_time", "timestamp"),
    )


def _anthropic(row: Row) -> Taken:
    """What was read from a cache or written to one stands beside the rest."""
    _check_currency(row)
    if _count(row, "web_search_count", default=0):
        raise BadRow("searches have no price here")
    reads = _count(row, "usage_input_tokens_cache_read", default=0)
    short = _count(row, "usage_input_tokens_cache_write_5m", default=0)
    long = _count(row, "usage_input_tokens_cache_write_1h", default=0)
    return Taken(
        provider="anthropic",
        model=_model(row, "model_version"),
        usage=CanonicalUsage(
            input_tokens=_count(row, "usage_input_tokens_no_cache") + reads + short + long,
            output_tokens=_count(row, "usage_output_tokens"),
            cache_read_tokens=reads,
            cache_write_5m_tokens=short,
            cache_write_1h_tokens=long,
        ),
        requests=0,  # not exported
        paid_pico=_dollars(row, "cost_usd"),
        day=_day(row, "usage_date_utc", "date"),
    )


def _openrouter(row: Row) -> Taken:
    _check_currency(row)
    if str(row.get("cancelled") or "").lower() == "true" and not row.get("tokens_completion"):
        raise BadRow("cancelled before anything came")
    return Taken(
        provider="openrouter",
        model=_model(row, "model_permaslug", "model"),
        usage=CanonicalUsage(
            input_tokens=_count(row, "tokens_prompt", "prompt_tokens"),
            output_tokens=_count(row, "tokens_completion", "completion_tokens"),
            cache_read_tokens=_count(row, "tokens_cached", default=0),
            reasoning_tokens=_count(row, "tokens_reasoning", "reasoning_tokens", default=0),
        ),
        requests=_count(row, "requests", default=1),
        paid_pico=_dollars(row, "cost_total", "usage"),
        day=_day(row, "created_at", "date"),
    )


def _litellm(row: Row) -> Taken:
    if str(row.get("status") or "success").lower() not in ("success", "200"):
        raise BadRow("the request failed")
    _check_currency(row)
    name = _model(row, "model", "model_group")
    seller = str(row.get("custom_llm_provider") or "").lower()
    if not seller and "/" in name:
        seller = name.partition("/")[0]
    return Taken(
        provider=LITELLM_SELLERS.get(seller, seller)[:80],
        model=name.removeprefix(f"{seller}/"),
        usage=CanonicalUsage(
            input_tokens=_count(row, "prompt_tokens"),
            output_tokens=_count(row, "completion_tokens"),
            cache_read_tokens=_cached(row),
        ),
        requests=1,
        paid_pico=_dollars(row, "spend"),
        day=_day(row, "startTime", "starttime", "start_time", "date"),
    )


def _cached(row: Row) -> int:
    """LiteLLM keeps the vendor's usage in its metadata, as an object or as text of one."""
    metadata: Any = row.get("metadata")
    if isinstance(metadata, str):
        try:
            metadata = msgspec.json.decode(metadata)
        except (msgspec.DecodeError, RecursionError):
            return 0
    found: Any = metadata
    for name in ("usage_object", "prompt_tokens_details"):
        found = found.get(name) if isinstance(found, dict) else None
    return _count(found, "cached_tokens", default=0) if isinstance(found, dict) else 0


LITELLM: Final = Format(
    "LiteLLM spend logs",
    frozenset({"spend", "prompt_tokens", "completion_tokens"}),
    False,
    _litellm,
)
FORMATS: Final = (
    Format(
        "Anthropic usage CSV",
        frozenset({"model_version", "usage_input_tokens_no_cache", "usage_output_tokens"}),
        True,
        _anthropic,
    ),
    Format(
        "OpenRouter activity CSV",
        frozenset({"model_permaslug", "tokens_prompt", "tokens_completion"}),
        False,
        _openrouter,
    ),
    Format(
        "OpenRouter activity by day",
        frozenset({"model_permaslug", "prompt_tokens", "completion_tokens"}),
        True,
        _openrouter,
    ),
    LITELLM,
    Format(
        "OpenAI usage CSV", frozenset({"model", "input_tokens", "output_tokens"}), True, _openai
    ),
    Format(
        "OpenAI usage CSV, older form",
        frozenset({"snapshot_id", "n_context_tokens_total", "n_generated_tokens_total"}),
        True,
        _openai,
    ),
)
