"""Rating: usage × price = cost, in integer pico-dollars, exactly and without rounding. Pure.

The data plane rates at settle and the drain rates again with the same functions: another
result is quarantined, never averaged.
"""

from collections.abc import Sequence

import msgspec

from billing.usage import CanonicalUsage, UsageError


class PriceNotFound(LookupError):
    """No price version fits: refused at admission, quarantined at the drain."""


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """One price version as the hot path sees it. Rates are pico-dollars per token."""

    version: int
    sku: str
    service_tier: int = 0
    context_over: int = 0
    input_pico: int
    cache_read_pico: int
    cache_write_5m_pico: int
    cache_write_1h_pico: int
    output_pico: int
    reasoning_pico: int
    input_audio_pico: int | None = None
    input_image_pico: int | None = None
    output_audio_pico: int | None = None
    request_pico: int = 0


def choose(prices: Sequence[Price], *, service_tier: int, input_tokens: int) -> Price:
    """The version for this tier and context: the highest threshold strictly below the input."""
    found = None
    for price in prices:
        if price.service_tier == service_tier and _over(input_tokens, price.context_over):
            if found is None or price.context_over > found.context_over:
                found = price
    if found is None:
        raise PriceNotFound(f"no price for tier {service_tier} at {input_tokens} input tokens")
    return found


def _over(input_tokens: int, threshold: int) -> bool:
    return threshold == 0 or input_tokens > threshold


def rate(usage: CanonicalUsage, price: Price) -> int:
    """What this usage costs at this price, in pico-dollars; UsageError where it cannot be rated."""
    usage.check()
    return (
        usage.uncached_input_tokens * price.input_pico
        + usage.cache_read_tokens * price.cache_read_pico
        + usage.cache_write_5m_tokens * price.cache_write_5m_pico
        + usage.cache_write_1h_tokens * price.cache_write_1h_pico
        + _optional(usage.input_audio_tokens, price.input_audio_pico, "audio input")
        + _optional(usage.input_image_tokens, price.input_image_pico, "image input")
        + usage.text_output_tokens * price.output_pico
        + usage.reasoning_tokens * price.reasoning_pico
        + _optional(usage.output_audio_tokens, price.output_audio_pico, "audio output")
        + price.request_pico
    )


def _optional(tokens: int, pico: int | None, unit: str) -> int:
    if tokens == 0:
        return 0
    if pico is None:
        raise UsageError(f"{unit} has no price at this sku")
    return tokens * pico


def worst_case(pinned: Sequence[Price], *, input_bound: int, output_bound: int) -> int:
    """The dearest that a request within these bounds can cost at one offer, in pico-dollars.

    Takes the dearest service tier that was pinned, the dearest context tier that the input bound
    can reach, and the dearest of the input rates (a prompt may be read from or written to a
    cache) and of the output rates.
    """
    reachable = [p for p in pinned if _over(input_bound, p.context_over)]
    if not reachable:
        raise PriceNotFound(f"no price at {input_bound} input tokens")
    return max(
        input_bound * _dearest_input(p) + output_bound * _dearest_output(p) + p.request_pico
        for p in reachable
    )


def _dearest_input(price: Price) -> int:
    return max(
        price.input_pico,
        price.cache_read_pico,
        price.cache_write_5m_pico,
        price.cache_write_1h_pico,
        price.input_audio_pico or 0,
        price.input_image_pico or 0,
    )


def _dearest_output(price: Price) -> int:
    return max(price.output_pico, price.reasoning_pico, price.output_audio_pico or 0)
