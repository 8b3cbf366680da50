"""Events with nothing in them but what their dialect names, told in under a microsecond.

A stream is thousands of such events: only what they do not cover is looked into for what a caller
must not see. Parts that are free in shape (`tool_calls`, `logprobs`) hold the model's own words.
"""

from typing import Any, Final

import msgspec

ANYTHING: Final = msgspec.Raw()


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


class _Choice(_Exact):
    index: msgspec.Raw = ANYTHING
    delta: _Delta | None = None
    logprobs: msgspec.Raw = ANYTHING
    finish_reason: msgspec.Raw = ANYTHING
    native_finish_reason: msgspec.Raw = ANYTHING  # OpenRouter
    stop_reason: msgspec.Raw = ANYTHING  # vLLM
    matched_stop: msgspec.Raw = ANYTHING  # SGLang
    token_ids: msgspec.Raw = ANYTHING


class _OpenAIEvent(_Exact):
    id: msgspec.Raw = ANYTHING
    object: msgspec.Raw = ANYTHING
    created: msgspec.Raw = ANYTHING
    model: msgspec.Raw = ANYTHING
    provider: msgspec.Raw = ANYTHING
    system_fingerprint: msgspec.Raw = ANYTHING
    service_tier: msgspec.Raw = ANYTHING
    obfuscation: msgspec.Raw = ANYTHING
    choices: list[_Choice] = []
    usage: None = None


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


_OPENAI: Final[Any] = msgspec.json.Decoder(_OpenAIEvent).decode
_ANTHROPIC: Final[Any] = msgspec.json.Decoder(_AnthropicEvent).decode


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
