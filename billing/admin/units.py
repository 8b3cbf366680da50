"""Amounts on the admin console's detail pages and forms: as people read them, with their unit.

Columns hold integers of the unit that their name ends in. A page that only shows says dollars, or
dollars per million tokens, and says so in the label; a form takes the same, exactly.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from typing import Any, Final

from django.db.models import Field, Model
from django.utils.text import capfirst
from unfold.decorators import display

from billing.money import PICO_PER_CENT, PICO_PER_NANO, usd_json, usd_per_million

# What is priced by the token; any other sum in pico-dollars is a sum.
RATES: Final = frozenset(
    """input_pico cache_read_pico cache_write_5m_pico cache_write_1h_pico output_pico reasoning_pico
    input_audio_pico input_image_pico output_audio_pico max_input_pico max_output_pico ours_pico
    theirs_pico""".split()
)
PER_HOUR: Final = "_per_hour_pico"
Shown = Callable[[Model], str]


def dollars(pico: int | None) -> str:
    """Exact, for tables that people add up."""
    return "—" if pico is None else f"${usd_json(int(pico)).decode()}"


def dollars_per_million(pico: int | None) -> str:
    """A rate, exact."""
    return "—" if pico is None else f"${usd_per_million(int(pico))}"


def percent(ppm: int | None) -> str:
    return "—" if ppm is None else f"{Decimal(ppm).scaleb(-4).normalize():f} %"


WORDS: Final[Mapping[str, tuple[str, Callable[[int | None], str]]]] = {
    "_pico": ("$", dollars),
    "_nano": ("$", lambda nano: dollars(None if nano is None else nano * PICO_PER_NANO)),
    "_cents": ("$", lambda cents: dollars(None if cents is None else cents * PICO_PER_CENT)),
    "_ppm": ("%", percent),
}


def is_amount(name: str) -> bool:
    return name.endswith(tuple(WORDS))


def in_words(name: str, value: int | None) -> str:
    """What a column of that name holds."""
    if name in RATES:
        return dollars_per_million(value)
    return WORDS[_ending(name)][1](value)


def _ending(name: str) -> str:
    return next(ending for ending in WORDS if name.endswith(ending))


@cache
def shown(field: "Field[Any, Any]") -> Shown:
    """That column as a read-only line of a detail page."""
    name = field.name
    unit, title = WORDS[_ending(name)][0], name.removesuffix(_ending(name))
    if name in RATES:
        unit = "$ per million tokens"
    elif name.endswith(PER_HOUR):
        unit, title = "$ per hour", "price"

    def line(obj: Model) -> str:
        value = getattr(obj, name)
        return in_words(name, None if value is None else int(value))

    line.__name__ = name
    label = f"{capfirst(title.replace('_', ' '))}, {unit}"
    described: Shown = display(description=label)(line)
    return described
