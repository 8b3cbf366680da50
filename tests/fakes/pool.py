"""What an attached server does for the stories: it lists its models, and calls a tool."""

import json
from typing import Any

from tests.fakes.upstream import STREAM_HEAD, USAGE, Exchange, FakeUpstream, floods, too_many_tokens

CONTEXT_LENGTH = 8192
CITY = {"city": "Oslo"}


def selling(*models: str) -> FakeUpstream:
    """A server that lists these models; some names misbehave as they say."""
    fake = FakeUpstream()
    listed = {"data": [{"id": model, "max_model_len": CONTEXT_LENGTH} for model in models]}

    async def lists_models(call: Exchange) -> None:
        await call.answer(200, listed)

    fake.behaviours |= {
        "": lists_models,
        "fox-gated": fake.gated,
        "fox-greedy": too_many_tokens,
        "fox-flood": floods,
        "fox-tools": calls_a_tool,
    }
    return fake


async def calls_a_tool(call: Exchange) -> None:
    """Asks for the weather with one tool call, its arguments in two pieces where streamed."""
    if not call.seen.body.get("stream"):
        await call.answer(200, _whole({"tool_calls": [_tool_call(json.dumps(CITY))]}))
        return
    text = json.dumps(CITY)
    await call.raw(STREAM_HEAD)
    await call.event(_chunk({"role": "assistant", "tool_calls": [_tool_call(text[:5], index=0)]}))
    rest = {"index": 0, "function": {"arguments": text[5:]}}
    await call.event(_chunk({"tool_calls": [rest]}))
    await call.event(_chunk({}, "tool_calls"))
    await call.event({**_chunk({}), "choices": [], "usage": USAGE})
    await call.event(b"[DONE]")
    await call.raw(b"0\r\n\r\n")


def _tool_call(arguments: str, **more: Any) -> dict[str, Any]:
    function = {"name": "weather", "arguments": arguments}
    return {"id": "call_1", "type": "function", "function": function, **more}


def _whole(message: dict[str, Any]) -> dict[str, Any]:
    said = {"role": "assistant", "content": None, **message}
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 1,
        "model": "fake",
        "choices": [{"index": 0, "message": said, "finish_reason": "tool_calls"}],
        "usage": USAGE,
    }


def _chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "fake",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
