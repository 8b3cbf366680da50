"""How figures are written for people: exact costs, rounded sums, prices, counts, times. Pure.

Costs keep every digit, in groups of three apart by thin spaces; everything else shows no more
digits than it needs. Money comes in as integer pico-dollars and is never a float on its way.
"""

from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

from billing.money import PICO_PER_CENT, PICO_PER_USD

THIN_SPACE = "\u2009"
MINUS = "\u2212"
NOTHING = "—"

Number = int | float | Decimal


def usd_exact(pico: int | Decimal) -> str:
    """Every digit of a cost: 153228000 -> $0.000 153 228."""
    amount = int(pico)
    sign = MINUS if amount < 0 else ""
    whole, fraction = divmod(abs(amount), PICO_PER_USD)
    if not fraction:
        return f"{sign}${whole:,}"
    digits = f"{fraction:012d}"
    groups = [digits[i : i + 3] for i in range(0, 12, 3)]
    while groups[-1] == "000":
        groups.pop()
    return f"{sign}${whole:,}.{THIN_SPACE.join(groups)}"


def usd(pico: int | Decimal) -> str:
    """A sum at a glance: cents from a dollar on, three significant digits below."""
    value = Decimal(int(pico)).scaleb(-12)
    sign = MINUS if value < 0 else ""
    return f"{sign}${_glance(abs(value))}"


def usd_left(pico: int | Decimal) -> str:
    """What is left to spend: rounded down, so that it is never overstated."""
    amount = int(pico)
    if amount < PICO_PER_USD:
        return usd(amount)
    return usd(amount // PICO_PER_CENT * PICO_PER_CENT)


def per_million(pico_per_token: Number) -> str:
    """A price in dollars per million tokens, which in micro-dollars is pico-dollars per token."""
    value = Decimal(str(pico_per_token)).scaleb(-6)
    return f"${_glance(value)}"


def per_million_exact(pico_per_token: int) -> str:
    """A published price with every digit it has, and at least cents: $0.0375."""
    value = Decimal(pico_per_token).scaleb(-6)
    text = f"{value:,f}"
    whole, _, fraction = text.partition(".")
    return f"${whole}.{fraction.rstrip('0').ljust(2, '0')}"


def _glance(value: Decimal) -> str:
    if value == 0:
        return "0"
    if value >= Decimal("0.995"):
        return f"{value.quantize(Decimal('0.01'), rounding=ROUND_HALF_UP):,}"
    places = max(2, 2 - value.adjusted())
    rounded = f"{value.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP):f}"
    whole, _, fraction = rounded.partition(".")
    return f"{whole}.{_grouped(fraction.rstrip('0').ljust(2, '0'))}"


def _grouped(fraction: str) -> str:
    if len(fraction) <= 6:
        return fraction
    return THIN_SPACE.join(fraction[i : i + 3] for i in range(0, len(fraction), 3))


def count(value: Number) -> str:
    return f"{int(value):,}"


def compact(value: Number) -> str:
    """Large counts with three digits and a letter: 41200 -> 41.2 k."""
    amount = Decimal(str(value))
    for letter, size in (("B", 10**9), ("M", 10**6), ("k", 10**4)):
        if abs(amount) >= size:
            unit = 1000 if letter == "k" else size
            return f"{_three_digits(amount / unit)}{THIN_SPACE}{letter}"
    return f"{int(amount):,}"


def _three_digits(value: Decimal) -> str:
    places = max(0, 2 - value.adjusted())
    text = f"{value.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def milliseconds(value: Number) -> str:
    amount = Decimal(str(value))
    return f"{amount.quantize(Decimal('0.1') if amount < 10 else Decimal(1)):,}"


def megabytes(count: int) -> str:
    """Bytes as millions; only nothing is 0."""
    if 0 < count < 500_000:
        return f"<1{THIN_SPACE}MB"
    return f"{(count + 500_000) // 1_000_000:,}{THIN_SPACE}MB"


def rate(value: Number) -> str:
    """Tokens per second, one decimal place."""
    return f"{Decimal(str(value)).quantize(Decimal('0.1'), rounding=ROUND_HALF_UP):,}"


def percent(share: Number) -> str:
    """A share of 1 as per cent; only nothing is 0 and only everything is 100."""
    value = Decimal(str(share)) * 100
    rounded = value.quantize(Decimal(1), rounding=ROUND_HALF_UP)
    if rounded == 100 and value < 100:
        return f"{min(value, Decimal('99.99')).quantize(Decimal('0.01'))}{THIN_SPACE}%"
    if rounded == 0 and value > 0:
        return f"<1{THIN_SPACE}%"
    return f"{rounded}{THIN_SPACE}%"


def age(then: datetime, now: datetime) -> str:
    """How long ago, in the largest unit that is not zero."""
    seconds = max(0, int((now - then).total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
