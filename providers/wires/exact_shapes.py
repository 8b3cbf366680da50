"""Answers with nothing in them but what their dialect names, told in about a microsecond.

A stream is thousands of such events: only what they do not cover is looked into for what a caller
must not see. Free in shape is only what the model itself wrote (`seller_costs.SAID`).
"""

from typing import Any, Final, Literal

import msgspec

ANYTHING: Final = msgspec.Raw()
Scalar = str | int | float | bool | None  # nothing can hide in it


class _Exact(msgspec.Struct, forbid_unknown_fields=True):
    """Refuses a name that it does not know."""


class _Function(_Exact):
    name: Scalar = None
    arguments: msgspec.Raw = ANYTHING


class _ToolCall(_Exact):
    index: Scalar = None
    id: Scalar = None
    type: Scalar = None
    function: _Function | None = None


class _Delta(_Exact):
    role: Scalar = None
    content: msgspec.Raw = ANYTHING
    refusal: Scalar = None
    reasoning: Scalar = None
    reasoning_content: Scalar = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None
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
    type: Scalar = None
    text: Scalar = None
    thinking: Scalar = None
    signature: Scalar = None
    partial_json: msgspec.Raw = ANYTHING


class _AnthropicEvent(_Exact):
    type: Scalar = None
    index: Scalar = None
    delta: _BlockDelta | None = None


class _PlainDelta(_Exact):
    role: Scalar = None
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
