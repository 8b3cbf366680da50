"""Units of money: integer pico-dollars (1e-12 USD); nano-dollars only inside Redis.

Pure. Formatting for people and for JSON lives here too, so that no float ever holds money.
"""

import re
from decimal import ROUND_HALF_UP, Context, Decimal, Inexact

PICO_PER_USD = 10**12
PICO_PER_NANO = 1000
PICO_PER_CENT = 10**10
PLAIN_DIGITS = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{1,30})?")
# More than there is: keeps 1e400 from becoming an integer of 400 digits.
USD_MAX = 10**20
# A pico-dollar per token is a micro-dollar per million tokens.
PICO_PER_TOKEN_PER_USD_PER_MILLION = 10**6
# More digits than any amount has: Python's own 28 would round the largest and the finest.
EXACT = Context(prec=80, traps=[Inexact])
# Redis scripts compute in doubles: every register stays below this, asserted there.
REGISTER_NANO_MAX = 2**52


def nano_ceil(pico: int) -> int:
    """Pico-dollars as nano-dollars, rounded up: a hold or charge never falls short."""
    return -(-pico // PICO_PER_NANO)


def nano_floor(pico: int) -> int:
    """Pico-dollars as nano-dollars, rounded down: credit and limits are never overstated."""
    return pico // PICO_PER_NANO


def half_away(amount: int, unit: int) -> int:
    """How many whole units an amount is, halves away from zero: -5 in units of 10 is -1."""
    whole, rest = divmod(abs(amount), unit)
    rounded = whole + (2 * rest >= unit)
    return -rounded if amount < 0 else rounded


def cents(pico: int) -> int:
    """Pico-dollars as whole cents, halves away from zero: what an invoice's line says."""
    return half_away(pico, PICO_PER_CENT)


def usd(pico: int | Decimal) -> Decimal:
    """Exact dollars."""
    return Decimal(int(pico)).scaleb(-12, EXACT)


def pico_from_usd(amount: Decimal | str | int) -> int:
    """Dollars as pico-dollars; refuses what is not a finite number or not exact in them.

    Digits are plain ones: Python also reads those of other scripts, which nobody means by a sum.
    """
    if isinstance(amount, str) and not PLAIN_DIGITS.fullmatch(amount):
        raise ValueError("an amount of money has plain digits")
    value = Decimal(amount)
    if not value.is_finite() or abs(value) >= USD_MAX:
        raise ValueError("not an amount of money")
    pico = value.scaleb(12, EXACT)
    if pico != pico.to_integral_value():
        raise ValueError(f"finer than a pico-dollar: {amount}")
    return int(pico)


def pico_per_token(usd_per_million: Decimal) -> int:
    """A published $/million-token price as integer pico-dollars per token, half away from zero."""
    scaled = usd_per_million * PICO_PER_TOKEN_PER_USD_PER_MILLION
    return int(scaled.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def usd_per_million(pico_per_token: int) -> str:
    """A price per token as dollars per million tokens, with every digit: 150000 -> "0.15"."""
    return usd_json(pico_per_token * PICO_PER_TOKEN_PER_USD_PER_MILLION).decode()


def usd_json(pico: int) -> bytes:
    """Pico-dollars as a JSON number without loss: 153228000 -> b"0.000153228"."""
    sign = "-" if pico < 0 else ""
    whole, fraction = divmod(abs(pico), PICO_PER_USD)
    if not fraction:
        return f"{sign}{whole}".encode()
    return f"{sign}{whole}.{fraction:012d}".rstrip("0").encode()
