"""Usage of every surface that vendors answer on, whole answer in, canonical counts out. Pure.

Chat and messages are read by `usage`; here are the surfaces that no wire of ours speaks yet, for
whoever rates somebody else's answers: Responses, Realtime, Gemini, Converse, Cohere. What is
delivered and has no price of ours (searches, pictures, cached audio) is a UsageError.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from billing.usage import CanonicalUsage, UsageError
from providers.wires.usage import (
    AnthropicUsage,
    Convention,
    OpenAIUsage,
    convention,
    counts_of,
    from_anthropic,
    from_openai,
    totalled,
)

IMAGES = frozenset({"IMAGE", "DOCUMENT"})  # Google meters the pages of a document as pictures
AUDIO = frozenset({"AUDIO"})
TEXT_RATE = frozenset({"TEXT", "VIDEO"})  # frames are priced as text by who publishes one price
TTL_5M, TTL_1H = "5m", "1h"


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_read_input_tokens: int | None = None  # Perplexity
    cache_write_tokens: int | None = None


class _ToolCalls(msgspec.Struct):
    invocation: int = 0


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class ResponsesUsage(msgspec.Struct):
    """OpenAI's Responses and its likenesses: every part stands inside its parent."""

    input_tokens: int
    output_tokens: int
    total_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None
    tool_calls_details: dict[str, _ToolCalls] | None = None  # Perplexity


class _CachedKinds(msgspec.Struct):
    audio_tokens: int | None = None
    image_tokens: int | None = None


class _RealtimeInput(msgspec.Struct):
    audio_tokens: int | None = None
    image_tokens: int | None = None
    cached_tokens: int | None = None
    cached_tokens_details: _CachedKinds | None = None


class _RealtimeOutput(msgspec.Struct):
    audio_tokens: int | None = None


class RealtimeUsage(msgspec.Struct):
    """OpenAI's Realtime: every part stands inside its parent; sound may be cached too."""

    input_tokens: int
    output_tokens: int
    total_tokens: int | None = None
    input_token_details: _RealtimeInput | None = None
    output_token_details: _RealtimeOutput | None = None


class _ModalityCount(msgspec.Struct, rename="camel"):
    modality: str
    token_count: int = 0


class GeminiUsage(msgspec.Struct, rename="camel"):
    """Google leaves out a count that is zero; the total tells whether one is missing."""

    prompt_token_count: int
    total_token_count: int
    candidates_token_count: int = 0
    thoughts_token_count: int = 0
    tool_use_prompt_token_count: int = 0
    cached_content_token_count: int = 0
    prompt_tokens_details: list[_ModalityCount] = []
    tool_use_prompt_tokens_details: list[_ModalityCount] = []
    cache_tokens_details: list[_ModalityCount] = []
    candidates_tokens_details: list[_ModalityCount] = []


class _CacheDetail(msgspec.Struct, rename="camel"):
    ttl: str
    input_tokens: int


class ConverseUsage(msgspec.Struct, rename="camel"):
    """Bedrock's Converse: cache reads and writes stand beside the input."""

    input_tokens: int
    output_tokens: int
    total_tokens: int | None = None
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    cache_details: list[_CacheDetail] = []
    server_tool_usage: dict[str, int] = {}


class _BilledUnits(msgspec.Struct):
    input_tokens: int
    output_tokens: int
    image_tokens: int = 0
    search_units: int = 0
    classifications: int = 0


class CohereUsage(msgspec.Struct):
    """`tokens` is what the model saw, template included; `billed_units` is what is charged."""

    billed_units: _BilledUnits


def read(provider: str, surface: str, answer: Mapping[str, object]) -> CanonicalUsage:
    """The usage of one whole answer; UsageError where it is missing or does not add up."""
    if surface not in READERS:
        raise UsageError(f"no surface is called {surface}")
    place, reader = READERS[surface]
    counts: object = answer
    for name in place.split("."):
        counts = counts.get(name) if isinstance(counts, Mapping) else None
    if counts is None:
        raise UsageError(f"the answer has no {place}")
    return reader(counts, convention(provider, "openai"))


def from_responses(usage: ResponsesUsage) -> CanonicalUsage:
    inputs = usage.input_tokens_details or _InputDetails()
    outputs = usage.output_tokens_details or _OutputDetails()
    if any(calls.invocation for calls in (usage.tool_calls_details or {}).values()):
        raise UsageError("tools that the vendor runs have no price")
    canonical = CanonicalUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=inputs.cached_tokens or inputs.cache_read_input_tokens or 0,
        cache_write_5m_tokens=inputs.cache_write_tokens or 0,
        reasoning_tokens=outputs.reasoning_tokens or 0,
    )
    return totalled(canonical, usage.total_tokens)


def from_realtime(usage: RealtimeUsage) -> CanonicalUsage:
    inputs = usage.input_token_details or _RealtimeInput()
    outputs = usage.output_token_details or _RealtimeOutput()
    audio, images = inputs.audio_tokens or 0, inputs.image_tokens or 0
    kinds = inputs.cached_tokens_details
    if kinds is not None and kinds.audio_tokens:
        raise UsageError("cached audio has no price")
    if inputs.cached_tokens and kinds is None and audio + images:
        raise UsageError("a cached prompt of several kinds does not say which are cached")
    cached_images = (kinds.image_tokens or 0) if kinds is not None else 0
    canonical = CanonicalUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=inputs.cached_tokens or 0,
        input_audio_tokens=audio,
        input_image_tokens=images - cached_images,
        output_audio_tokens=outputs.audio_tokens or 0,
    )
    return totalled(canonical, usage.total_tokens)


def from_gemini(usage: GeminiUsage) -> CanonicalUsage:
    """Thoughts and what tools put into the prompt stand beside their parents."""
    inputs = [*usage.prompt_tokens_details, *usage.tool_use_prompt_tokens_details]
    cached = usage.cache_tokens_details
    _refuse_unknown([*inputs, *cached, *usage.candidates_tokens_details])
    if _sum(cached, AUDIO):
        raise UsageError("cached audio has no price")
    images = _sum(inputs, IMAGES)
    if usage.cached_content_token_count and not cached and images + _sum(inputs, AUDIO):
        raise UsageError("a cached prompt of several kinds does not say which are cached")
    if _sum(usage.candidates_tokens_details, IMAGES | {"VIDEO"}):
        raise UsageError("pictures in the output have no price")
    canonical = CanonicalUsage(
        input_tokens=usage.prompt_token_count + usage.tool_use_prompt_token_count,
        output_tokens=usage.candidates_token_count + usage.thoughts_token_count,
        cache_read_tokens=usage.cached_content_token_count,
        input_audio_tokens=_sum(inputs, AUDIO),
        input_image_tokens=images - _sum(cached, IMAGES),
        reasoning_tokens=usage.thoughts_token_count,
        output_audio_tokens=_sum(usage.candidates_tokens_details, AUDIO),
    )
    return totalled(canonical, usage.total_token_count)


def _refuse_unknown(counts: Iterable[_ModalityCount]) -> None:
    unknown = {c.modality for c in counts if c.token_count} - TEXT_RATE - AUDIO - IMAGES
    if unknown:
        raise UsageError(f"tokens of {', '.join(sorted(unknown))} have no price")


def _sum(counts: Sequence[_ModalityCount], modalities: Iterable[str]) -> int:
    return sum(c.token_count for c in counts if c.modality in modalities)


def from_converse(usage: ConverseUsage) -> CanonicalUsage:
    if any(usage.server_tool_usage.values()):
        raise UsageError("tools that the vendor runs have no price")
    reads, writes = usage.cache_read_input_tokens, usage.cache_write_input_tokens
    lives = {detail.ttl for detail in usage.cache_details} - {TTL_5M, TTL_1H}
    told = sum(detail.input_tokens for detail in usage.cache_details)
    if lives or (usage.cache_details and told != writes):
        raise UsageError(f"the details of cache writes do not make {writes}")
    one_hour = sum(d.input_tokens for d in usage.cache_details if d.ttl == TTL_1H)
    canonical = CanonicalUsage(
        input_tokens=usage.input_tokens + reads + writes,
        output_tokens=usage.output_tokens,
        cache_read_tokens=reads,
        cache_write_5m_tokens=writes - one_hour,
        cache_write_1h_tokens=one_hour,
    )
    return totalled(canonical, usage.total_tokens)


def from_cohere(usage: CohereUsage) -> CanonicalUsage:
    units = usage.billed_units
    if units.image_tokens or units.search_units or units.classifications:
        raise UsageError("images, searches and classifications have no price")
    canonical = CanonicalUsage(input_tokens=units.input_tokens, output_tokens=units.output_tokens)
    return totalled(canonical, None)


Reader = Callable[[Any, Convention], CanonicalUsage]
# Surface -> where the counts stand in the answer (names with dots between), and how they are read.
READERS: Mapping[str, tuple[str, Reader]] = {
    "chat": ("usage", lambda c, rule: from_openai(counts_of(c, OpenAIUsage), rule)),
    "messages": ("usage", lambda c, _: from_anthropic(counts_of(c, AnthropicUsage))),
    "responses": ("usage", lambda c, _: from_responses(counts_of(c, ResponsesUsage))),
    "realtime": (
        "response.usage",
        lambda c, _: from_realtime(counts_of(c, RealtimeUsage)),
    ),
    "gemini": ("usageMetadata", lambda c, _: from_gemini(counts_of(c, GeminiUsage))),
    "converse": ("usage", lambda c, _: from_converse(counts_of(c, ConverseUsage))),
    "cohere": ("usage", lambda c, _: from_cohere(counts_of(c, CohereUsage))),
}
