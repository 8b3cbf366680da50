"""Vendor usage -> canonical usage. The convention is the vendor's, never guessed from a shape.

Canonical counts are inclusive: the input contains cache reads and writes, the output contains
reasoning. Where a total is given it must be the sum that the convention says; counts that do
not add up are not usage. None is not 0. Of several counts of one answer the larger is true.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from billing.usage import CanonicalUsage, UsageError
from providers.json_values import JsonObject, JsonValue
from providers.wires import seller_costs


@dataclass(frozen=True, slots=True)
class Convention:
    """How a (provider, dialect) counts the parts of its OpenAI-shaped usage."""

    cache_additive: bool = False  # prompt_tokens leaves cache reads and writes out
    reasoning_additive: bool = False  # completion_tokens leaves reasoning out


T = TypeVar("T")


class NoCounts(UsageError):
    """A usage block without the counts of input or output: as if none had come."""


SUBSET = Convention()
CONVENTIONS: Mapping[tuple[str, str], Convention] = {
    ("snowflake", "openai"): Convention(cache_additive=True),
    ("x-ai", "openai"): Convention(reasoning_additive=True),
    ("google", "openai"): Convention(reasoning_additive=True),
}


def convention(provider: str, dialect: str) -> Convention:
    return CONVENTIONS.get((provider, dialect), SUBSET)


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None


class _ServerToolUse(msgspec.Struct):
    """Fetches cost nothing but their tokens; searches are charged apiece."""

    web_search_requests: int | None = None


class _ServerToolCalls(msgspec.Struct):
    tool_calls_executed: int | None = None


class OpenAIUsage(msgspec.Struct):
    """As OpenAI and its many likenesses send it; other names for the same count included."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    prompt_cache_hit_tokens: int | None = None  # DeepSeek
    cached_tokens: int | None = None  # Moonshot, Together
    cache_read_input_tokens: int | None = None  # Snowflake
    cache_creation_input_tokens: int | None = None
    cached_prompt_text_tokens: int | None = None  # x-ai
    reasoning_tokens: int | None = None  # Databricks, Modal, x-ai
    citation_tokens: int | None = None  # Perplexity
    num_search_queries: int | None = None
    num_sources_used: int | None = None  # x-ai
    server_tool_use: _ServerToolUse | None = None  # OpenRouter
    server_tool_use_details: _ServerToolCalls | None = None


class _CacheCreation(msgspec.Struct):
    ephemeral_5m_input_tokens: int | None = None
    ephemeral_1h_input_tokens: int | None = None


class _ThinkingDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class _Iteration(msgspec.Struct):
    """One pass of the model where a request took several; the totals hold only the last."""

    type: str
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_creation: _CacheCreation | None = None


class AnthropicUsage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: _CacheCreation | None = None
    output_tokens_details: _ThinkingDetails | None = None
    server_tool_use: _ServerToolUse | None = None
    iterations: list[_Iteration] | None = None


def counts_of(stated: Any, kind: type[T]) -> T:
    """Decoded JSON as counts of this kind; UsageError where they are none. To JSON `10.0` is an
    integer, as it is to JSON Schema; a text is no number."""
    try:
        try:
            return msgspec.convert(stated, kind)
        except msgspec.ValidationError:
            return msgspec.convert(_integral(stated), kind)
    except (msgspec.ValidationError, RecursionError) as problem:
        raise UsageError(str(problem)) from problem


def _integral(stated: Any) -> Any:
    if isinstance(stated, float) and stated.is_integer():
        return int(stated)
    if isinstance(stated, Decimal) and stated.is_finite() and stated == stated.to_integral_value():
        return int(stated)
    if isinstance(stated, dict):
        return {name: _integral(value) for name, value in stated.items()}
    if isinstance(stated, list):
        return [_integral(value) for value in stated]
    return stated


def larger(before: CanonicalUsage | None, later: CanonicalUsage) -> CanonicalUsage:
    """What two counts of one answer come to. Counts grow while an answer is made; a smaller one
    that comes later, a zero above all, takes nothing back of what was counted."""
    if before is None:
        return later
    if before.input_tokens <= later.input_tokens and before.output_tokens <= later.output_tokens:
        return later
    prompt = before if before.input_tokens > later.input_tokens else later
    answer = before if before.output_tokens > later.output_tokens else later
    return joined(prompt, answer)


def joined(prompt: CanonicalUsage, answer: CanonicalUsage) -> CanonicalUsage:
    """The input of the one with the output of the other."""
    return msgspec.structs.replace(
        prompt,
        output_tokens=answer.output_tokens,
        reasoning_tokens=answer.reasoning_tokens,
        output_audio_tokens=answer.output_audio_tokens,
    )


def from_openai(usage: OpenAIUsage, rule: Convention) -> CanonicalUsage:
    """UsageError where a count is missing or the sum is wrong."""
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    if prompt is None or completion is None:
        raise NoCounts("prompt_tokens or completion_tokens is missing")
    inputs = usage.prompt_tokens_details or _PromptDetails()
    outputs = usage.completion_tokens_details or _CompletionDetails()
    if outputs.image_tokens:
        raise UsageError("pictures in the output have no price")
    _refuse_tools(usage)
    reads = _first(
        inputs.cached_tokens,
        usage.cached_tokens,
        usage.cached_prompt_text_tokens,
        usage.prompt_cache_hit_tokens,
        usage.cache_read_input_tokens,
    )
    writes = _first(inputs.cache_write_tokens, usage.cache_creation_input_tokens)
    reasoning = _first(outputs.reasoning_tokens, usage.reasoning_tokens)
    if rule.cache_additive:
        prompt += reads + writes
    if rule.reasoning_additive and prompt + completion != usage.total_tokens:
        completion += reasoning  # some of their models count it inside: the total tells
    canonical = CanonicalUsage(
        input_tokens=prompt,
        output_tokens=completion,
        cache_read_tokens=reads,
        cache_write_5m_tokens=writes,
        input_audio_tokens=inputs.audio_tokens or 0,
        reasoning_tokens=reasoning,
        output_audio_tokens=outputs.audio_tokens or 0,
    )
    return totalled(canonical, usage.total_tokens)


def _refuse_tools(usage: OpenAIUsage) -> None:
    """What a vendor's own tools did is charged beside the tokens, and is in none of the counts."""
    searches = usage.server_tool_use or _ServerToolUse()
    calls = usage.server_tool_use_details or _ServerToolCalls()
    delivered = (
        usage.citation_tokens,
        usage.num_search_queries,
        usage.num_sources_used,
        searches.web_search_requests,
        calls.tool_calls_executed,
    )
    if any(delivered):
        raise UsageError("citations, searches and tools of the vendor have no price")


def from_anthropic(usage: AnthropicUsage) -> CanonicalUsage:
    """Cache reads and writes stand beside input_tokens and are added to it."""
    if usage.input_tokens is None or usage.output_tokens is None:
        raise NoCounts("input_tokens or output_tokens is missing")
    if usage.server_tool_use is not None and usage.server_tool_use.web_search_requests:
        raise UsageError("searches have no price")
    if usage.iterations:
        usage = _summed(usage.iterations, usage.output_tokens_details)
    reads = usage.cache_read_input_tokens or 0
    split = usage.cache_creation or _CacheCreation()
    one_hour = split.ephemeral_1h_input_tokens or 0
    named = split.ephemeral_5m_input_tokens
    writes = usage.cache_creation_input_tokens
    if writes is None:
        writes = one_hour + (named or 0)
    five_minutes = writes - one_hour
    if named is not None and named != five_minutes:
        raise UsageError(f"cache writes of {named} and {one_hour} do not make {writes}")
    details = usage.output_tokens_details or _ThinkingDetails()
    canonical = CanonicalUsage(
        input_tokens=(usage.input_tokens or 0) + reads + writes,
        output_tokens=usage.output_tokens or 0,
        cache_read_tokens=reads,
        cache_write_5m_tokens=five_minutes,
        cache_write_1h_tokens=one_hour,
        reasoning_tokens=details.thinking_tokens or 0,
    )
    return totalled(canonical, None)


def _summed(iterations: list[_Iteration], details: _ThinkingDetails | None) -> AnthropicUsage:
    """Every pass is billed; one that runs on another model has another price, and is not ours."""
    foreign = {each.type for each in iterations} - {"message", "compaction"}
    if foreign:
        raise UsageError(f"passes of type {', '.join(sorted(foreign))} have no price")
    splits = [each.cache_creation or _CacheCreation() for each in iterations]
    return AnthropicUsage(
        input_tokens=sum(each.input_tokens for each in iterations),
        output_tokens=sum(each.output_tokens for each in iterations),
        cache_read_input_tokens=sum(each.cache_read_input_tokens for each in iterations),
        cache_creation_input_tokens=sum(each.cache_creation_input_tokens for each in iterations),
        cache_creation=_CacheCreation(
            ephemeral_1h_input_tokens=sum(s.ephemeral_1h_input_tokens or 0 for s in splits),
        ),
        output_tokens_details=details,
    )


def totalled(usage: CanonicalUsage, total: int | None) -> CanonicalUsage:
    """The same usage; UsageError where a part exceeds its parent or the total is not the sum."""
    usage.check()
    if total is not None and total != usage.input_tokens + usage.output_tokens:
        raise UsageError(
            f"total_tokens is {total}, but {usage.input_tokens} and {usage.output_tokens} "
            f"make {usage.input_tokens + usage.output_tokens}"
        )
    return usage


def _first(*counts: int | None) -> int:
    """The first count that is more than nothing: vendors name one figure several ways."""
    return next((count for count in counts if count), 0)


# Read to be refused, and the client's to see.
_TOLD = {
    "iterations",
    "citation_tokens",
    "num_search_queries",
    "num_sources_used",
    "server_tool_use",
    "server_tool_use_details",
}
_COUNTED = (
    frozenset(
        OpenAIUsage.__struct_fields__
        + AnthropicUsage.__struct_fields__
        + ("usage_source", "confidence", "held")
    )
    - _TOLD
)


def extra(usage: JsonValue) -> JsonObject:
    """What a vendor says in its usage beside the counts and beside what it charges us."""
    if not isinstance(usage, dict):
        return {}
    beside: JsonObject = {name: said for name, said in usage.items() if name not in _COUNTED}
    told = seller_costs.kept_of(beside)
    return told if isinstance(told, dict) else {}
