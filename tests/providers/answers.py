"""Answers as two vendors send them, byte for byte: one text, one pair of tool calls each."""

import msgspec

_HEAD = '"id":"chatcmpl-up1","object":"chat.completion.chunk","created":1700000000'
_USAGE = (
    '{"prompt_tokens":20,"completion_tokens":8,"total_tokens":28,'
    '"prompt_tokens_details":{"cached_tokens":12},'
    '"completion_tokens_details":{"reasoning_tokens":3}}'
)


def _openai_event(choices: str, usage: str = "null") -> str:
    return f'data: {{{_HEAD},"model":"acme-small-v1","choices":[{choices}],"usage":{usage}}}\n\n'


def _delta(delta: str, finish: str = "null") -> str:
    return _openai_event(
        f'{{"index":0,"delta":{{{delta}}},"logprobs":null,"finish_reason":{finish}}}'
    )


def _openai_stream(*deltas: str, finish: str) -> bytes:
    events = [_delta(delta) for delta in deltas]
    events += [_delta("", f'"{finish}"'), _openai_event("", _USAGE), "data: [DONE]\n\n"]
    return "".join(events).encode()


OPENAI_TEXT_STREAM = _openai_stream(
    '"role":"assistant","content":""',
    '"content":"Hel"',
    '"content":"lo, wörld"',
    '"content":"."',
    finish="stop",
)
OPENAI_TOOLS_STREAM = _openai_stream(
    '"role":"assistant","content":null',
    '"tool_calls":[{"index":0,"id":"call_a","type":"function",'
    '"function":{"name":"weather","arguments":""}}]',
    '"tool_calls":[{"index":0,"function":{"arguments":"{\\"city\\":"}}]',
    '"tool_calls":[{"index":0,"function":{"arguments":"\\"Bern\\"}"}}]',
    '"tool_calls":[{"index":1,"id":"call_b","type":"function",'
    '"function":{"name":"clock","arguments":""}}]',
    '"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]',
    finish="tool_calls",
)
_CALLS = (
    '[{"id":"call_a","type":"function","function":{"name":"weather",'
    '"arguments":"{\\"city\\":\\"Bern\\"}"}},'
    '{"id":"call_b","type":"function","function":{"name":"clock","arguments":"{}"}}]'
)


def _openai_whole(message: str, finish: str) -> bytes:
    return (
        '{"id":"chatcmpl-up1","object":"chat.completion","created":1700000000,'
        f'"model":"acme-small-v1","choices":[{{"index":0,"message":{{"role":"assistant",{message}}}'
        f',"logprobs":null,"finish_reason":"{finish}"}}],"usage":{_USAGE},"vendor_note":"kept"}}'
    ).encode()


OPENAI_TEXT = _openai_whole('"content":"Hello, wörld.","refusal":null', "stop")
OPENAI_TOOLS = _openai_whole(f'"content":null,"tool_calls":{_CALLS}', "tool_calls")


def _event(name: str, **fields: object) -> str:
    data = msgspec.json.encode({"type": name, **fields}).decode()
    return f"event: {name}\ndata: {data}\n\n"


_START = _event(
    "message_start",
    message={
        "id": "msg_up1",
        "type": "message",
        "role": "assistant",
        "model": "acme-small-v1",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 8,
            "cache_read_input_tokens": 12,
            "cache_creation_input_tokens": 0,
            "output_tokens": 1,
        },
    },
) + _event("ping")


def _end(stop_reason: str) -> str:
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    usage = {"output_tokens": 8, "output_tokens_details": {"thinking_tokens": 3}}
    return _event("message_delta", delta=delta, usage=usage) + _event("message_stop")


def _text(*pieces: str) -> str:
    start = _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    deltas = [
        _event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
        for piece in pieces
    ]
    return start + "".join(deltas) + _event("content_block_stop", index=0)


def _tool(index: int, identity: str, name: str, *pieces: str) -> str:
    block = {"type": "tool_use", "id": identity, "name": name, "input": {}}
    deltas = [
        _event(
            "content_block_delta",
            index=index,
            delta={"type": "input_json_delta", "partial_json": piece},
        )
        for piece in pieces
    ]
    return (
        _event("content_block_start", index=index, content_block=block)
        + "".join(deltas)
        + _event("content_block_stop", index=index)
    )


ANTHROPIC_TEXT_STREAM = (_START + _text("Hel", "lo, wörld", ".") + _end("end_turn")).encode()
ANTHROPIC_TOOLS_STREAM = (
    _START
    + _tool(0, "call_a", "weather", '{"city":', '"Bern"}')
    + _tool(1, "call_b", "clock", "{}")
    + _end("tool_use")
).encode()


def _anthropic_whole(content: list[dict[str, object]], stop_reason: str) -> bytes:
    return msgspec.json.encode(
        {
            "id": "msg_up1",
            "type": "message",
            "role": "assistant",
            "model": "acme-small-v1",
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": {
                "input_tokens": 8,
                "cache_read_input_tokens": 12,
                "cache_creation_input_tokens": 0,
                "output_tokens": 8,
                "output_tokens_details": {"thinking_tokens": 3},
            },
            "vendor_note": "kept",
        }
    )


ANTHROPIC_TEXT = _anthropic_whole([{"type": "text", "text": "Hello, wörld."}], "end_turn")
ANTHROPIC_TOOLS = _anthropic_whole(
    [
        {"type": "tool_use", "id": "call_a", "name": "weather", "input": {"city": "Bern"}},
        {"type": "tool_use", "id": "call_b", "name": "clock", "input": {}},
    ],
    "tool_use",
)

ANSWERS: dict[tuple[str, str, bool], bytes] = {
    ("openai", "text", True): OPENAI_TEXT_STREAM,
    ("openai", "text", False): OPENAI_TEXT,
    ("openai", "tools", True): OPENAI_TOOLS_STREAM,
    ("openai", "tools", False): OPENAI_TOOLS,
    ("anthropic", "text", True): ANTHROPIC_TEXT_STREAM,
    ("anthropic", "text", False): ANTHROPIC_TEXT,
    ("anthropic", "tools", True): ANTHROPIC_TOOLS_STREAM,
    ("anthropic", "tools", False): ANTHROPIC_TOOLS,
}
