"""CSV files for people: they open in spreadsheets, which run what looks like a formula.

Names of models and sellers come from elsewhere, so a text that begins like a formula is quoted.
"""

import csv
import re
from collections.abc import Iterable
from typing import Any, Final

from django.http import HttpResponse

FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")


def csv_response(name: str, *, head: Iterable[str], rows: Iterable[Iterable[Any]]) -> HttpResponse:
    """A download; numbers are left as they are."""
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{UNSAFE.sub("-", name)}"'
    writer = csv.writer(response)
    writer.writerow(head)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return response


def _cell(value: Any) -> Any:
    is_formula = isinstance(value, str) and value.startswith(FORMULA_STARTS)
    return f"'{value}" if is_formula and not _is_number(value) else value


def _is_number(text: str) -> bool:
    return text.removeprefix("-").replace(".", "", 1).isdecimal()
