"""The one usage block that a client sees, in either dialect, with its exact cost.

`cost` is a JSON number written from integer pico-dollars: it never was a float.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from billing import basis
from billing.money import usd_json
from providers.chat import Held, Receipt

# A block that is written and never read: whatever a vendor says beside its counts goes on in it.
Written = dict[str, object]
OWN: Final = "tokenhouse"


class HeldPart(msgspec.Struct):
    """What stays debited until somebody decides, why, and what is charged when nobody does."""

    amount: msgspec.Raw
    estimate: msgspec.Raw
    reason: str


class Own(msgspec.Struct):
    stopped_by: str | msgspec.UnsetType = msgspec.UNSET
    choices_missing: int | msgspec.UnsetType = msgspec.UNSET
    explanation: Mapping[str, object] | msgspec.UnsetType = msgspec.UNSET


def openai_usage(receipt: Receipt) -> Written:
    """OpenAI counts parts as subsets of their parents, as the canonical usage does."""
    usage = receipt.usage
    counts: Written = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_5m_tokens + usage.cache_write_1h_tokens,
            "audio_tokens": usage.input_audio_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.output_audio_tokens,
        },
    }
    return _completed(counts, receipt)


def anthropic_usage(receipt: Receipt) -> Written:
    """Anthropic counts cache reads and writes beside the input, not inside it."""
    usage = receipt.usage
    writes = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
    counts: Written = {
        "input_tokens": usage.input_tokens - usage.cache_read_tokens - writes,
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation_input_tokens": writes,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m_tokens,
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        },
    }
    if usage.reasoning_tokens:
        counts["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return _completed(counts, receipt)


def _completed(counts: Written, receipt: Receipt) -> Written:
    """Counts with the cost, where they come from, and the vendor's extras, which replace none."""
    counts["cost"] = msgspec.Raw(usd_json(receipt.cost_pico))
    if receipt.session_cost_pico is not None:
        counts["session_cost"] = msgspec.Raw(usd_json(receipt.session_cost_pico))
    if receipt.usage_source not in ("", basis.PROVIDER):
        counts["usage_source"] = receipt.usage_source
    if receipt.usage_source in basis.CONFIDENCE and receipt.usage_source != basis.PROVIDER:
        counts["confidence"] = basis.CONFIDENCE[receipt.usage_source]
    if receipt.held is not None:
        counts["held"] = held_part(receipt.held)
    for name, value in receipt.usage_extra.items():
        counts.setdefault(name, value)
    return counts


def held_part(held: Held) -> HeldPart:
    return HeldPart(
        amount=msgspec.Raw(usd_json(held.amount_pico)),
        estimate=msgspec.Raw(usd_json(held.estimate_pico)),
        reason=held.reason,
    )


def own_part(receipt: Receipt) -> Own | None:
    """What of ours stands in an answer's last part beside its usage."""
    if not (receipt.stopped_by or receipt.choices_missing or receipt.explanation is not None):
        return None
    return Own(
        stopped_by=receipt.stopped_by or msgspec.UNSET,
        choices_missing=receipt.choices_missing or msgspec.UNSET,
        explanation=msgspec.UNSET if receipt.explanation is None else receipt.explanation,
    )


def own_fields(receipt: Receipt) -> dict[str, Own]:
    """The same, under its name."""
    own = own_part(receipt)
    return {} if own is None else {OWN: own}
