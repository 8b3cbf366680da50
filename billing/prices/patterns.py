"""What the pattern of a price rule matches: a sku, a provider's skus ("openai/") or all ("").

A pattern that no price matches is refused with what would match: by model, by seller, by pattern.
"""

import difflib
from datetime import datetime
from typing import Final

from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.db.models import QuerySet

from billing.errors import PriceRefused
from billing.models import PriceVersion

SUGGESTED_MAX: Final = 5


def covers(pattern: str, sku: str) -> bool:
    if not pattern or pattern.endswith("/"):
        return sku.startswith(pattern)
    return sku == pattern


def under(rows: "QuerySet[PriceVersion]", pattern: str) -> "QuerySet[PriceVersion]":
    """Those of these versions that a pattern covers."""
    if not pattern or pattern.endswith("/"):
        return rows.filter(sku__code__startswith=pattern)
    return rows.filter(sku__code=pattern)


def in_force(pattern: str, now: datetime) -> "QuerySet[PriceVersion]":
    """The list prices under a pattern that are in force, or will be."""
    rows = PriceVersion.objects.filter(price_list=None, during__overlap=DateTimeTZRange(now, None))
    return under(rows, pattern).select_related("sku").order_by("sku__code", "pk")


def require_match(pattern: str, *, now: datetime) -> None:
    """PriceRefused says what would match."""
    if not in_force(pattern, now).exists():
        raise PriceRefused(f"no price matches {pattern!r}; {_would_match(pattern, now)}")


def _would_match(pattern: str, now: datetime) -> str:
    codes = sorted(set(in_force("", now).values_list("sku__code", flat=True)))
    if not codes:
        return "there is no price yet"
    word = pattern.strip("/ ").lower()
    skus = [code for code in codes if word and word in code.lower()]
    skus += difflib.get_close_matches(pattern, codes, SUGGESTED_MAX)
    sellers = sorted({f"{code.split('/')[0]}/" for code in codes if "/" in code})
    near = [seller for seller in sellers if word and word in seller.lower()]
    said = []
    if skus:
        said.append("these do by model: " + ", ".join(list(dict.fromkeys(skus))[:SUGGESTED_MAX]))
    said.append("by seller: " + ", ".join((near or sellers)[:SUGGESTED_MAX]))
    return "; ".join(said) + "; by pattern: nothing for everything, a sku, or a seller's name and /"
