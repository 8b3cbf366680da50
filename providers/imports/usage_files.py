"""Reads what others exported of your usage: OpenAI's, Anthropic's and OpenRouter's CSV, LiteLLM's
spend logs (CSV, JSON or JSON lines). Pure; line by line, with every limit stated.

A row is one request or an aggregate of many, as the vendor exports it; a row that cannot be read is
left out and listed with its line. What a row says is `usage_exports`' affair.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import IO, Final, TypeVar

import msgspec

from billing.usage import CanonicalUsage, UsageError
from providers.imports.usage_exports import FORMATS, LITELLM, BadRow, Format, Row, Taken

FILE_BYTES_MAX: Final = 2_400_000
ROWS_MAX: Final = 100_000
LINE_BYTES_MAX: Final = 64 * 1024
BAD_ROWS_LISTED_MAX: Final = 50
MODELS_MAX: Final = 500


Kind = TypeVar("Kind")


class UsageFileRefused(ValueError):
    """The file as a whole cannot be read; the text says why."""


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

    def add(self, taken: Taken) -> None:
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
    rows: int = 0
    bad_rows: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)


def read(file: IO[bytes]) -> UsageFile:
    """Everything the file says of what was used. UsageFileRefused where that is nothing."""
    chosen, rows = rows_of(file)
    return _read(rows, chosen)


def rows_of(file: IO[bytes]) -> tuple[Format, Iterator[tuple[int, Row | str]]]:
    """Whose export it is, and each row by its line, or why it is none. UsageFileRefused."""
    lines = _lines(file)
    first = next(lines, None)
    if first is None:
        raise UsageFileRefused("the file is empty")
    number, text = first
    if text.lstrip().startswith(("{", "[")):
        return LITELLM, _bounded(_json_rows(number, text, lines))
    try:
        head = next(csv.reader([text], strict=True), [])
    except csv.Error as wrong:
        raise UsageFileRefused(f"the first line is no head of a CSV file: {wrong}") from None
    columns = [name.strip().lower() for name in head]
    if twice := next((name for name in columns if name and columns.count(name) > 1), None):
        raise UsageFileRefused(f"two columns are named {twice[:40]!r}")
    chosen = next((f for f in FORMATS if f.columns <= set(columns)), None)
    if chosen is None:
        raise UsageFileRefused(
            "no export that is known here: expected the usage CSV of OpenAI, Anthropic or"
            " OpenRouter, or LiteLLM's spend logs"
        )
    return chosen, _bounded(_csv_rows(columns, lines))


def _bounded(
    rows: Iterable[tuple[int, Row | str]],
) -> Iterator[tuple[int, Row | str]]:
    for count, row in enumerate(rows, start=1):
        if count > ROWS_MAX:
            raise UsageFileRefused(f"the file has more than {ROWS_MAX:,} rows")
        yield row


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
        entry = msgspec.json.decode(text, type=dict[str, object])
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
            yield at, _decode(line, dict[str, object])
        except (msgspec.DecodeError, RecursionError) as wrong:
            yield at, f"no JSON object: {wrong}"


def _document(text: str) -> Iterator[tuple[int, Row | str]]:
    try:
        document = _decode(text, object)
    except (msgspec.DecodeError, RecursionError) as wrong:
        raise UsageFileRefused(f"the file is neither CSV nor JSON: {wrong}") from None
    if isinstance(document, dict):
        document = document.get("data")
    if not isinstance(document, list):
        raise UsageFileRefused("the file is no list of spend logs")
    for number, entry in enumerate(document, start=1):
        yield number, entry if isinstance(entry, dict) else "no JSON object"


def _decode(text: str, kind: type[Kind]) -> Kind:
    return msgspec.json.Decoder(kind, float_hook=Decimal).decode(text)


def _read(rows: Iterable[tuple[int, Row | str]], chosen: Format) -> UsageFile:
    found = UsageFile(chosen.name, chosen.aggregated)
    for number, row in rows:
        found.rows += 1
        try:
            if isinstance(row, str):
                raise BadRow(row)
            _add(found, chosen.take(row))
        except (BadRow, UsageError) as wrong:
            found.bad_rows += 1
            if len(found.bad) < BAD_ROWS_LISTED_MAX:
                found.bad.append((number, str(wrong)[:200]))
    if not found.models:
        raise UsageFileRefused(
            f"no row of {found.rows} could be read"
            + (f"; line {found.bad[0][0]}: {found.bad[0][1]}" if found.bad else "")
        )
    return found


def _add(found: UsageFile, taken: Taken) -> None:
    key = (taken.provider, taken.model)
    if key not in found.models:
        if len(found.models) >= MODELS_MAX:
            raise BadRow(f"more than {MODELS_MAX} models")
        found.models[key] = ModelUsage(*key)
    found.models[key].add(taken)
