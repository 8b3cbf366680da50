"""Answers with nothing in them but what their dialect names, told in about a microsecond.

A stream is thousands of such events: only what they do not cover is looked into for what a caller
must not see. Parts that are free in shape (`tool_calls`, `logprobs`) hold the model's own words.
"""

from typing import Any, Final, Literal

import msgspec

ANYTHING: Final = msgspec.Raw()
Scalar = str | int | float | bool | None  # nothing can hide in it


class _Exact(msgspec.Struct, forbid_unknown_fields=True):
    """Refuses a name that it does not know."""


class _Delta(_Exact):
    role: msgspec.Raw = ANYTHING
    content: msgspec.Raw = ANYTHING
    refusal: msgspec.Raw = ANYTHING
    reasoning: msgspec.Raw = ANYTHING
    reasoning_content: msgspec.Raw = ANYTHING
    tool_calls: msgspec.Raw = ANYTHING
    function_call: msgspec.Raw = ANYTHING
    annotations: list[_Exact] = []  # none, or empty ones


class _Choice(_Exact):
    index: Scalar = None
    delta: _Delta | None = None
    message: _Delta | None = None
    logprobs: msgspec.Raw = ANYTHING
    finish_reason: Scalar = None
    native_finish_reason: Scalar = None  # OpenRouter
    stop_reason: Scalar = None  # vLLM
    matched_stop: Scalar = None  # SGLang
    token_ids: list[int] | None = None


class _PromptDetails(_Exact):
    cached_tokens: Scalar = None
    cache_write_tokens: Scalar = None
    audio_tokens: Scalar = None


class _CompletionDetails(_Exact):
    reasoning_tokens: Scalar = None
    audio_tokens: Scalar = None
    accepted_prediction_tokens: Scalar = None
    rejected_prediction_tokens: Scalar = None


class _Usage(_Exact):
    prompt_tokens: Scalar = None
    completion_tokens: Scalar = None
    total_tokens: Scalar = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _OpenAIAnswer(_Exact):
    id: Scalar = None
    object: Scalar = None
    created: Scalar = None
    model: Scalar = None
    provider: Scalar = None
    system_fingerprint: Scalar = None
    service_tier: Scalar = None
    obfuscation: Scalar = None
    choices: list[_Choice] = []
    usage: _Usage | None = None


class _BlockDelta(_Exact):
    type: msgspec.Raw = ANYTHING
    text: msgspec.Raw = ANYTHING
    thinking: msgspec.Raw = ANYTHING
    signature: msgspec.Raw = ANYTHING
    partial_json: msgspec.Raw = ANYTHING


class _AnthropicEvent(_Exact):
    type: msgspec.Raw = ANYTHING
    index: msgspec.Raw = ANYTHING
    delta: _BlockDelta | None = None


class _PlainDelta(_Exact):
    role: msgspec.Raw = ANYTHING
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: None = None


class _PlainChoice(_Exact):
    delta: _PlainDelta
    index: int = 0
    logprobs: None = None
    finish_reason: None = None
    native_finish_reason: None = None
    stop_reason: None = None
    matched_stop: None = None
    token_ids: None = None


class PlainEvent(_Exact):
    """A piece of one choice's text, or of what it thinks, and nothing else: nearly every event of
    nearly every stream."""

    choices: tuple[_PlainChoice]
    id: str = ""
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: Scalar = None
    model: str | None = None
    provider: Scalar = None
    system_fingerprint: Scalar = None
    service_tier: str | None = None
    obfuscation: Scalar = None
    usage: None = None


_PLAIN: Final = msgspec.json.Decoder(PlainEvent).decode
_OPENAI: Final[Any] = msgspec.json.Decoder(_OpenAIAnswer).decode
_ANTHROPIC: Final[Any] = msgspec.json.Decoder(_AnthropicEvent).decode


def plain_openai(data: bytes) -> PlainEvent | None:
    """The event, decoded; None where there is more to it."""
    try:
        return _PLAIN(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def is_usual_openai(data: bytes) -> bool:
    return _fits(_OPENAI, data)


def is_usual_anthropic(data: bytes) -> bool:
    return _fits(_ANTHROPIC, data)


def _fits(decode: Any, data: bytes) -> bool:
    try:
        decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
