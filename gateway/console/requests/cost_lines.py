"""The cost of an attempt, line by line: token class, count, rate, amount. Pure.

The lines of a rated attempt sum to its rated cost. What the tenant pays can be less: nothing
for a failed attempt, and never more than the hold; `Bill` says by how much, and why.
"""

from dataclasses import dataclass
from typing import Final

from billing.models import PriceVersion, UsageEvent


@dataclass(frozen=True, slots=True)
class CostLine:
    label: str
    tokens: int
    rate_pico: int | None
    amount_pico: int


@dataclass(frozen=True, slots=True)
class Bill:
    lines: tuple[CostLine, ...]
    rated_pico: int
    charged_pico: int

    @property
    def waived_pico(self) -> int:
        return self.rated_pico - self.charged_pico


# The leaves of usage in the order they are shown, with the price column that rates each.
LEAVES: Final = (
    ("Cached input", "cache_read_tokens", "cache_read_pico"),
    ("Cache write, 5 min", "cache_write_5m_tokens", "cache_write_5m_pico"),
    ("Cache write, 1 h", "cache_write_1h_tokens", "cache_write_1h_pico"),
    ("Audio input", "input_audio_tokens", "input_audio_pico"),
    ("Image input", "input_image_tokens", "input_image_pico"),
    ("Reasoning", "reasoning_tokens", "reasoning_pico"),
    ("Audio output", "output_audio_tokens", "output_audio_pico"),
)


def bill_of(event: UsageEvent) -> Bill:
    """The bill of one attempt at the price version that rated it."""
    price = event.price_version
    lines = () if price is None else _lines(event, price)
    return Bill(
        lines=lines,
        rated_pico=sum(line.amount_pico for line in lines),
        charged_pico=event.tenant_cost_pico,
    )


def _lines(event: UsageEvent, price: PriceVersion) -> tuple[CostLine, ...]:
    input_parts = sum(getattr(event, tokens) for _, tokens, _ in LEAVES[:5])
    output_parts = event.reasoning_tokens + event.output_audio_tokens
    lines = [
        _line("Input", event.input_tokens - input_parts, price.input_pico),
        *(
            _line(label, getattr(event, tokens), getattr(price, rate))
            for label, tokens, rate in LEAVES[:5]
            if getattr(event, tokens)
        ),
        _line("Output", event.output_tokens - output_parts, price.output_pico),
        *(
            _line(label, getattr(event, tokens), getattr(price, rate))
            for label, tokens, rate in LEAVES[5:]
            if getattr(event, tokens)
        ),
    ]
    if price.request_pico:
        lines.append(CostLine("Per request", 1, None, price.request_pico))
    return tuple(lines)


def _line(label: str, tokens: int, rate_pico: int | None) -> CostLine:
    return CostLine(label, tokens, rate_pico, tokens * (rate_pico or 0))
