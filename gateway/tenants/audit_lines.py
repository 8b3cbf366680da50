"""The audit log for people: teams and keys by their names, what changed in dollars and words."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from billing.models import AuditEntry
from billing.money import PICO_PER_CENT, PICO_PER_NANO, usd_json
from billing.rates import percent_text
from gateway.models import ApiKey, Team

# As billing, which knows them by number only, names what a limit is for.
_NUMBERED: Final = re.compile(r"\b(team|key) (\d{1,18})\b")
_PICO_PER_UNIT: Final = {"_pico": 1, "_nano": PICO_PER_NANO, "_cents": PICO_PER_CENT}
TOLD_MAX: Final = 6
VALUE_LENGTH_MAX: Final = 60
NOTHING: Final = "nothing"


@dataclass(frozen=True, slots=True)
class AuditLine:
    entry: AuditEntry
    subject: str
    change: str


def read(entries: Iterable[AuditEntry]) -> list[AuditLine]:
    """All of them with two look-ups of names."""
    found = list(entries)
    names = _names(found)
    return [
        AuditLine(entry, _named(entry, names), change_of(entry.before, entry.after))
        for entry in found
    ]


def change_of(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    """What is different: "limit $500.25 → $700"; what was made or removed is stated."""
    old, new = before or {}, after or {}
    told = []
    for name in dict.fromkeys([*new, *old]):
        had, has = old.get(name), new.get(name)
        if had == has:
            continue
        words, is_change = _words(name), name in old and name in new
        value = f"{_value(name, had)} → {_value(name, has)}" if is_change else ""
        told.append(f"{words} {value or _value(name, has if name in new else had)}")
    more = f" and {len(told) - TOLD_MAX} more" if len(told) > TOLD_MAX else ""
    gone = "removed: " if after is None and told else ""
    return f"{gone}{', '.join(told[:TOLD_MAX])}{more}"


def _words(name: str) -> str:
    for unit in (*_PICO_PER_UNIT, "_ppm", "_usd"):
        name = name.removesuffix(unit)
    return name.replace("_", " ")


def _value(name: str, value: Any) -> str:
    if value is None or value == "":
        return NOTHING
    if isinstance(value, int) and not isinstance(value, bool):
        for unit, pico in _PICO_PER_UNIT.items():
            if name.endswith(unit):
                return f"${usd_json(value * pico).decode()}"
        if name.endswith("_ppm"):
            return percent_text(value)
        return f"{value:,}"
    if name.endswith("_usd"):
        return f"${Decimal(str(value)).normalize():f}"
    if isinstance(value, dict):
        return _short(", ".join(f"{_words(key)} {_value(key, one)}" for key, one in value.items()))
    if isinstance(value, list):
        return _short(", ".join(map(str, value)) or NOTHING)
    return _short(str(value))


def _short(text: str) -> str:
    return text if len(text) <= VALUE_LENGTH_MAX else f"{text[:VALUE_LENGTH_MAX]}…"


def _names(entries: Iterable[AuditEntry]) -> dict[tuple[str, int, int], str]:
    """Names by kind, number and tenant: a number of another tenant names nothing."""
    wanted: dict[str, set[int]] = {"team": set(), "key": set()}
    for entry in entries:
        for kind, number in _NUMBERED.findall(entry.subject):
            wanted[kind].add(int(number))
    found: dict[tuple[str, int, int], str] = {}
    for kind, model in (("team", Team), ("key", ApiKey)):
        rows = model.objects.filter(pk__in=wanted[kind]).values_list("pk", "tenant", "name")
        found |= {(kind, pk, tenant): name for pk, tenant, name in rows}
    return found


def _named(entry: AuditEntry, names: Mapping[tuple[str, int, int], str]) -> str:
    def name(found: re.Match[str]) -> str:
        known = names.get((found[1], int(found[2]), entry.tenant_id or 0))
        return f"{found[1]} {known}" if known else found[0]

    return _NUMBERED.sub(name, entry.subject)
