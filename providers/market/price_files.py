"""Reads other people's price files, to hold ours against them: OpenRouter's list of models, and
LiteLLM's price map. Pure. Bytes in; skus with pico-dollars per token out.

Numbers are read as decimals, exactly, whether the file has them as strings or as JSON numbers;
what is not a price is counted and left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Final, TypeVar

import msgspec

from billing.money import PICO_PER_USD
from billing.rates import RATE_PICO_MAX
from providers.market.model_names import LITELLM_SELLERS

FILE_BYTES_MAX: Final = 32 * 1024 * 1024
ENTRIES_MAX: Final = 50_000
NUMBER_LENGTH_MAX: Final = 40
OPENROUTER: Final = "openrouter"
LITELLM: Final = "litellm"
# Their names -> ours. Both are dollars per token.
OPENROUTER_RATES: Final = {
    "prompt": "input_pico",
    "completion": "output_pico",
    "input_cache_read": "cache_read_pico",
    "input_cache_write": "cache_write_5m_pico",
    "internal_reasoning": "reasoning_pico",
}
LITELLM_RATES: Final = {
    "input_cost_per_token": "input_pico",
    "output_cost_per_token": "output_pico",
    "cache_read_input_token_cost": "cache_read_pico",
    "cache_creation_input_token_cost": "cache_write_5m_pico",
    "output_cost_per_reasoning_token": "reasoning_pico",
}
Stated = dict[str, dict[str, int]]
Kind = TypeVar("Kind")


class PriceFileRefused(ValueError):
    """The file is too large, no JSON, or of no format that is known here."""


@dataclass(slots=True)
class PriceFile:
    """What a file states. `skipped`: entries without a usable price, by why."""

    format: str
    stated: Stated = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)

    def skip(self, why: str) -> None:
        self.skipped[why] = self.skipped.get(why, 0) + 1


def read(body: bytes, *, provider: str = OPENROUTER) -> PriceFile:
    """The file's prices; `provider` names whose list it is where the file does not say."""
    if len(body) > FILE_BYTES_MAX:
        raise PriceFileRefused(f"the file is larger than {FILE_BYTES_MAX:,} bytes")
    try:
        document = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        if "data" in document:
            entries = msgspec.json.decode(document["data"], type=list[msgspec.Raw])
            return _openrouter(entries, provider)
        return _litellm(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise PriceFileRefused(f"the file is no price list that is known here: {wrong}") from None


class _Model(msgspec.Struct):
    id: str
    pricing: dict[str, object] | None = None


def _openrouter(entries: list[msgspec.Raw], provider: str) -> PriceFile:
    found = PriceFile(OPENROUTER)
    _check_count(len(entries))
    for raw in entries:
        try:
            model = _decimals(raw, _Model)
        except msgspec.ValidationError:
            found.skip("not a model")
            continue
        currency = (model.pricing or {}).get("currency", "USD")
        _take(found, f"{provider}/{model.id}".lower(), model.pricing, OPENROUTER_RATES, currency)
    return found


def _decimals(raw: msgspec.Raw, kind: type[Kind]) -> Kind:
    """Decoded with fractions as the text says them, never as floats."""
    return msgspec.json.Decoder(kind, float_hook=Decimal).decode(raw)


def _litellm(document: Mapping[str, msgspec.Raw]) -> PriceFile:
    found = PriceFile(LITELLM)
    _check_count(len(document))
    for name, raw in document.items():
        entry = _decimals(raw, object)
        if not isinstance(entry, dict) or not isinstance(entry.get("litellm_provider"), str):
            found.skip("no seller")
            continue
        seller = LITELLM_SELLERS.get(entry["litellm_provider"], entry["litellm_provider"])
        model = name.split("/", 1)[1] if name.startswith(f"{entry['litellm_provider']}/") else name
        currency = entry.get("currency", "USD")
        _take(found, f"{seller}/{model}".lower(), entry, LITELLM_RATES, currency)
    if not found.stated and not found.skipped:
        raise PriceFileRefused("the file has no entries")
    return found


def _check_count(entries: int) -> None:
    if entries > ENTRIES_MAX:
        raise PriceFileRefused(f"the file has more than {ENTRIES_MAX:,} entries")


def _take(
    found: PriceFile,
    sku: str,
    priced: Mapping[str, object] | None,
    names: Mapping[str, str],
    currency: object,
) -> None:
    if currency != "USD":
        found.skip("not in US dollars")
        return
    rates: dict[str, int] = {}
    for theirs, ours in names.items():
        value = (priced or {}).get(theirs)
        if value is None:
            continue
        pico = _pico(value)
        if pico is None:
            found.skip("not a price")
            return
        rates[ours] = pico
    # Listed at nothing may mean free, or that nobody knows.
    if not any(rates.values()):
        found.skip("no price, or free")
        return
    # OpenRouter says 0 where a class of tokens has no price of its own.
    found.stated[sku] = {name: pico for name, pico in rates.items() if pico}


def _pico(value: object) -> int | None:
    """Dollars per token as pico-dollars, half up; None for what is no price."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return None
    text = str(value)
    if not text.isascii() or len(text) > NUMBER_LENGTH_MAX:
        return None
    try:
        amount = Decimal(text)
    except InvalidOperation:
        return None
    if not amount.is_finite() or not 0 <= amount <= Decimal(RATE_PICO_MAX).scaleb(-12):
        return None
    return int(amount * PICO_PER_USD + Decimal("0.5"))
