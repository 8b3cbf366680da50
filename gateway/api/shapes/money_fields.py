"""Money on the wire: decimal strings in dollars, exact, never floats."""

from decimal import Decimal
from typing import Any, Final

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing.money import pico_from_usd, usd, usd_per_million

LENGTH_MAX: Final = 40


def usd_text(pico: int) -> str:
    """Exact dollars, without exponent and without trailing zeros."""
    return _plain(usd(pico))


def usd_per_million_text(pico_per_token: int | None) -> str | None:
    """A price per token as dollars per million tokens."""
    return None if pico_per_token is None else usd_per_million(pico_per_token)


def _plain(amount: Decimal) -> str:
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


@extend_schema_field(
    {"type": "string", "format": "decimal", "maxLength": LENGTH_MAX, "example": "12.50"}
)
class UsdField(serializers.Field[int, Any, str, Any]):
    """Pico-dollars inside, a decimal string outside; refuses floats and what is finer."""

    default_error_messages = {"invalid": 'Dollars as a decimal string, such as "12.50".'}

    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, str) or len(data) > LENGTH_MAX:
            self.fail("invalid")
        try:
            return pico_from_usd(data)
        except (ValueError, ArithmeticError):
            self.fail("invalid")

    def to_representation(self, value: int) -> str:
        return usd_text(int(value))
