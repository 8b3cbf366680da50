"""The one usage block that a client sees, in either dialect, with its exact cost.

`cost` is a JSON number written from integer pico-dollars: it never was a float.
"""

from typing import Any

import msgspec

from billing import basis
from billing.money import usd_json
from providers.chat import Held, Receipt


def openai_usage(receipt: Receipt) -> dict[str, Any]:
    """OpenAI counts parts as subsets of their parents, as the canonical usage does."""
    usage = receipt.usage
    counts: dict[str, Any] = {
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


def anthropic_usage(receipt: Receipt) -> dict[str, Any]:
    """Anthropic counts cache reads and writes beside the input, not inside it."""
    usage = receipt.usage
    writes = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
    counts: dict[str, Any] = {
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


def _completed(counts: dict[str, Any], receipt: Receipt) -> dict[str, Any]:
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


def held_part(held: Held) -> dict[str, Any]:
    """What stays debited until somebody decides, why, and what is charged when nobody does."""
    return {
        "amount": msgspec.Raw(usd_json(held.amount_pico)),
        "estimate": msgspec.Raw(usd_json(held.estimate_pico)),
        "reason": held.reason,
    }


def own_fields(receipt: Receipt) -> dict[str, Any]:
    """Top-level fields of ours in an answer's last part."""
    ours: dict[str, Any] = {}
    if receipt.stopped_by:
        ours["stopped_by"] = receipt.stopped_by
    if receipt.choices_missing:
        ours["choices_missing"] = receipt.choices_missing
    if receipt.explanation is not None:
        ours["explanation"] = receipt.explanation
    return {"tokenhouse": ours} if ours else {}
