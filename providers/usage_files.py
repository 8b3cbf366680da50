"""Reads what others exported of your usage: OpenAI's, Anthropic's and OpenRouter's CSV, LiteLLM's
spend logs (CSV, JSON or JSON lines). Pure; line by line, with every limit stated.

A row is one request or an aggregate of many, as the vendor exports it; a row that cannot be read is
left out and listed with its line. Counts become canonical and inclusive by the vendor's convention.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import IO, Any, Final

import msgspec

from billing.money import PICO_PER_USD
from billing.usage import CanonicalUsage, UsageError
from providers.model_names import LITELLM_SELLERS

FILE_BYTES_MAX: Final = 2_400_000
ROWS_MAX: Final = 100_000
LINE_BYTES_MAX: Final = 64 * 1024
BAD_ROWS_LISTED_MAX: Final = 50
MODELS_MAX: Final = 500
COUNT: Final = re.compile(r"[0-9]{1,15}(\.0+)?")
MONEY: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,20})?([eE]-[0-9]{1,2})?")
SECONDS: Final = re.compile(r"[0-9]{9,10}")
NAME: Final = re.compile(r"[\x21-\x7e]{1,200}")
Row = Mapping[str, Any]


class UsageFileRefused(ValueError):
    """The file as a whole cannot be read; the text says why."""


class _BadRow(ValueError):
    pass


@dataclass(slots=True)
class ModelUsage:
    """All rows of one model. `paid_pico` is None where the file names no costs."""

    provider: str
    model: str
    rows: int = 0
    requests: int = 0
    usage: CanonicalUsage = field(
        default_factory=lambda: CanonicalUsage(input_tokens=0, output_tokens=0)
    )
    paid_pico: int | None = None

    def add(self, taken: "_Taken") -> None:
        self.rows += 1
        self.requests += taken.requests
        self.usage = CanonicalUsage(
            **{
                name: getattr(self.usage, name) + getattr(taken.usage, name)
                for name in CanonicalUsage.__struct_fields__
            }
        )
        if taken.paid_pico is not None:
            self.paid_pico = (self.paid_pico or 0) + taken.paid_pico


@dataclass(slots=True)
class UsageFile:
    """`aggregated`: its rows stand for many requests each, so that one's size is not known."""

    format: str
    aggregated: bool
    models: dict[tuple[str, str], ModelUsage] = field(default_factory=dict)
    # The same by day in UTC, as far as rows name theirs.
    days: dict[tuple[str, str, date | None], ModelUsage] = field(default_factory=dict)
    rows: int = 0
    bad_rows: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Taken:
    provider: str
    model: str
    usage: CanonicalUsage
    requests: int
    paid_pico: int | None
    day: date | None


@dataclass(frozen=True, slots=True)
class _Format:
    """A vendor's export: known by the columns that it always has."""

    name: str
    columns: frozenset[str]
    aggregated: bool
    take: Callable[[Row], _Taken]


def read(file: IO[bytes]) -> UsageFile:
    """Everything the file says of what was used. UsageFileRefused where that is nothing."""
    lines = _lines(file)
    first = next(lines, None)
    if first is None:
        raise UsageFileRefused("the file is empty")
    number, text = first
    if text.lstrip().startswith(("{", "[")):
        return _read(_json_rows(number, text, lines), LITELLM)
    try:
        head = next(csv.reader([text], strict=True), [])
    except csv.Error as wrong:
        raise UsageFileRefused(f"the first line is no head of a CSV file: {wrong}") from None
    columns = [name.strip().lower() for name in head]
    chosen = next((f for f in FORMATS if f.columns <= set(columns)), None)
    if chosen is None:
        raise UsageFileRefused(
            "no export that is known here: expected the usage CSV of OpenAI, Anthropic or"
            " OpenRouter, or LiteLLM's spend logs"
        )
    return _read(_csv_rows(columns, lines), chosen)


def _lines(file: IO[bytes]) -> Iterator[tuple[int, str]]:
    """Numbered lines; the whole is bounded, and so is each."""
    total = 0
    for number, raw in enumerate(iter(lambda: file.readline(FILE_BYTES_MAX + 1), b""), start=1):
        total += len(raw)
        if total > FILE_BYTES_MAX:
            raise UsageFileRefused(f"the file is larger than {FILE_BYTES_MAX:,} bytes")
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if raw.strip():
            yield number, raw.decode("utf-8", errors="replace")


def _csv_rows(
    columns: list[str], lines: Iterable[tuple[int, str]]
) -> Iterator[tuple[int, Row | str]]:
    """A row is one line: no export here has line breaks inside a field."""
    for number, text in lines:
        if len(text) > LINE_BYTES_MAX:
            yield number, "the line is too long"
            continue
        try:
            cells = next(csv.reader([text], strict=True), [])
        except csv.Error as wrong:
            yield number, str(wrong)
            continue
        if len(cells) != len(columns):
            yield number, f"{len(cells)} cells for {len(columns)} columns"
        else:
            yield number, dict(zip(columns, cells, strict=True))


def _json_rows(
    number: int, text: str, lines: Iterator[tuple[int, str]]
) -> Iterator[tuple[int, Row | str]]:
    """JSON lines, or one document with a list, whose entries are then numbered."""
    try:
        entry = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        whole = text + "".join(line for _, line in lines)
        yield from _document(whole)
        return
    if isinstance(entry.get("data"), list):
        yield from _document(text)
        return
    yield number, entry
    for at, line in lines:
        try:
            yield at, _decode(line, dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as wrong:
            yield at, f"no JSON object: {wrong}"


def _document(text: str) -> Iterator[tuple[int, Row | str]]:
    try:
        document = _decode(text, Any)
    except (msgspec.DecodeError, RecursionError) as wrong:
        raise UsageFileRefused(f"the file is neither CSV nor JSON: {wrong}") from None
    if isinstance(document, dict):
        document = document.get("data")
    if not isinstance(document, list):
        raise UsageFileRefused("the file is no list of spend logs")
    for number, entry in enumerate(document, start=1):
        yield number, entry if isinstance(entry, dict) else "no JSON object"


def _decode(text: str, kind: Any) -> Any:
    return msgspec.json.Decoder(kind, float_hook=Decimal).decode(text)


def _read(rows: Iterable[tuple[int, Row | str]], chosen: _Format) -> UsageFile:
    found = UsageFile(chosen.name, chosen.aggregated)
    for number, row in rows:
        found.rows += 1
        if found.rows > ROWS_MAX:
            raise UsageFileRefused(f"the file has more than {ROWS_MAX:,} rows")
        try:
            if isinstance(row, str):
                raise _BadRow(row)
            _add(found, chosen.take(row))
        except (_BadRow, UsageError) as wrong:
            found.bad_rows += 1
            if len(found.bad) < BAD_ROWS_LISTED_MAX:
                found.bad.append((number, str(wrong)[:200]))
    if not found.models:
        raise UsageFileRefused(
            f"no row of {found.rows} could be read"
            + (f"; line {found.bad[0][0]}: {found.bad[0][1]}" if found.bad else "")
        )
    return found


def _add(found: UsageFile, taken: _Taken) -> None:
    taken.usage.check()
    key = (taken.provider, taken.model)
    if key not in found.models:
        if len(found.models) >= MODELS_MAX:
            raise _BadRow(f"more than {MODELS_MAX} models")
        found.models[key] = ModelUsage(*key)
    found.models[key].add(taken)
    found.days.setdefault((*key, taken.day), ModelUsage(*key)).add(taken)


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


def _count(row: Row, *names: str, default: int | None = None) -> int:
    """The first of these columns that has a value, as a count."""
    for name in names:
        value = row.get(name)
        if value is None or value == "":
            continue
        text = str(value).strip()
        if isinstance(value, bool) or not COUNT.fullmatch(text):
            raise _BadRow(f"{name} is not a count: {text[:40]!r}")
        return int(text.partition(".")[0])
    if default is None:
        raise _BadRow(f"{names[0]} is missing")
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
            raise _BadRow(f"{name} is not a sum of dollars: {text[:40]!r}")
        total += Decimal(text)
    return int(total * PICO_PER_USD)


def _model(row: Row, *names: str) -> str:
    text = next((str(row[name]).strip() for name in names if row.get(name)), "")
    if not NAME.fullmatch(text):
        raise _BadRow(f"{names[0]} is not a model: {text[:40]!r}")
    return text.lower()


def _check_currency(row: Row) -> None:
    currency = str(row.get("currency") or "usd").strip().lower()
    if currency != "usd":
        raise _BadRow(f"not in US dollars: {currency[:10]!r}")


def _openai(row: Row) -> _Taken:
    """Every part stands inside its parent."""
    _check_currency(row)
    return _Taken(
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


def _anthropic(row: Row) -> _Taken:
    """What was read from a cache or written to one stands beside the rest."""
    _check_currency(row)
    if _count(row, "web_search_count", default=0):
        raise _BadRow("searches have no price here")
    reads = _count(row, "usage_input_tokens_cache_read", default=0)
    short = _count(row, "usage_input_tokens_cache_write_5m", default=0)
    long = _count(row, "usage_input_tokens_cache_write_1h", default=0)
    return _Taken(
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


def _openrouter(row: Row) -> _Taken:
    _check_currency(row)
    if str(row.get("cancelled") or "").lower() == "true" and not row.get("tokens_completion"):
        raise _BadRow("cancelled before anything came")
    return _Taken(
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


def _litellm(row: Row) -> _Taken:
    if str(row.get("status") or "success").lower() not in ("success", "200"):
        raise _BadRow("the request failed")
    _check_currency(row)
    name = _model(row, "model", "model_group")
    seller = str(row.get("custom_llm_provider") or "").lower()
    if not seller and "/" in name:
        seller = name.partition("/")[0]
    return _Taken(
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
            metadata = _decode(metadata, Any)
        except (msgspec.DecodeError, RecursionError):
            return 0
    found: Any = metadata
    for name in ("usage_object", "prompt_tokens_details"):
        found = found.get(name) if isinstance(found, dict) else None
    return _count(found, "cached_tokens", default=0) if isinstance(found, dict) else 0


LITELLM: Final = _Format(
    "LiteLLM spend logs",
    frozenset({"spend", "prompt_tokens", "completion_tokens"}),
    False,
    _litellm,
)
FORMATS: Final = (
    _Format(
        "Anthropic usage CSV",
        frozenset({"model_version", "usage_input_tokens_no_cache", "usage_output_tokens"}),
        True,
        _anthropic,
    ),
    _Format(
        "OpenRouter activity CSV",
        frozenset({"model_permaslug", "tokens_prompt", "tokens_completion"}),
        False,
        _openrouter,
    ),
    _Format(
        "OpenRouter activity by day",
        frozenset({"model_permaslug", "prompt_tokens", "completion_tokens"}),
        True,
        _openrouter,
    ),
    LITELLM,
    _Format(
        "OpenAI usage CSV", frozenset({"model", "input_tokens", "output_tokens"}), True, _openai
    ),
    _Format(
        "OpenAI usage CSV, older form",
        frozenset({"snapshot_id", "n_context_tokens_total", "n_generated_tokens_total"}),
        True,
        _openai,
    ),
)
