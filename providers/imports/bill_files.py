"""A provider's bill or usage export as rows of it: every line of the file becomes one.

What a row says stays as it says it: its sum in its own currency, negative where it takes something
back. What cannot be made out is said in `why`, beside whatever else the row does say. Pure.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import blake2b
from typing import IO, Final, TypeVar

import msgspec

from billing.books import bill_rows
from billing.models import ProviderBillRow
from billing.usage import CanonicalUsage, UsageError
from providers.imports import usage_exports, usage_files
from providers.imports.usage_exports import BadRow, Format, Row

FINEST: Final = Decimal(1).scaleb(-20)
UNREADABLE: Final = "?"
CURRENCY_LENGTH_MAX: Final = 10
EMPTY: Final = "is empty"
Said = TypeVar("Said")


def read(
    file: IO[bytes], names: Mapping[str, str], *, now: datetime
) -> tuple[str, list[ProviderBillRow]]:
    """The format and all rows, in our names of models. UsageFileRefused where it is no export."""
    chosen, rows = usage_files.rows_of(file)
    return chosen.name, list(_rows(chosen, rows, names, now))


def _rows(
    chosen: Format,
    rows: Iterator[tuple[int, Row | str]],
    names: Mapping[str, str],
    now: datetime,
) -> Iterator[ProviderBillRow]:
    seen: dict[bytes, int] = {}
    for number, row in rows:
        if isinstance(row, str):
            yield ProviderBillRow(number=number, why=row[:200], currency=UNREADABLE)
        elif _is_empty(row):
            yield ProviderBillRow(number=number, why=EMPTY, amount=Decimal(0))
        else:
            made = _row(number, chosen, row, names, now)
            first = seen.setdefault(_content(row), number)
            if first != number and not made.why:
                made.why = bill_rows.same_as(first)
            yield made


def _is_empty(row: Row) -> bool:
    return all(value is None or not str(value).strip() for value in row.values())


def _content(row: Row) -> bytes:
    """The same for rows that say the same in every column."""
    said = repr(sorted((name, str(value)) for name, value in row.items()))
    return blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _row(
    number: int, chosen: Format, row: Row, names: Mapping[str, str], now: datetime
) -> ProviderBillRow:
    wrong: list[str] = []

    def said(what: Callable[[], Said]) -> Said | None:
        try:
            return what()
        except (BadRow, UsageError) as problem:
            wrong.append(str(problem))
            return None

    usage = said(lambda: _counts(chosen, row))
    model = said(lambda: chosen.model(row)) or ""
    day = usage_exports.day_of(row, *chosen.days)
    if day is not None and day > now.astimezone(UTC).date():
        wrong.append(f"a day that has not come: {day}")
        day = None
    paid = said(lambda: usage_exports.amount(row, *chosen.sums))
    currency = said(lambda: _currency(row)) or UNREADABLE
    return ProviderBillRow(
        number=number,
        why="; ".join(wrong)[:200],
        day=day,
        model=names.get(model, model),
        input_tokens=usage.input_tokens if usage else 0,
        output_tokens=usage.output_tokens if usage else 0,
        amount=None if paid is None else paid.quantize(FINEST, context=bill_rows.EXACT),
        currency=currency,
    )


def _currency(row: Row) -> str:
    named = usage_exports.currency_of(row)
    if len(named) > CURRENCY_LENGTH_MAX or not named.isprintable():
        raise BadRow(f"currency is none: {named[:40]!r}")
    return named


def _counts(chosen: Format, row: Row) -> CanonicalUsage:
    """What was used, or all of it below nothing where the row takes it back."""
    usage = chosen.counts(row)
    counts = msgspec.structs.asdict(usage)
    is_taken_back = min(counts.values()) < 0 and max(counts.values()) <= 0
    check = CanonicalUsage(**{name: -n for name, n in counts.items()}) if is_taken_back else usage
    check.check()
    return usage
