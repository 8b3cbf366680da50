"""A foreign server's answer, from its bytes to what clients of both dialects see: through the
reader of its wire and the writers of both surfaces.
"""

import json
from typing import Any

from billing.usage import CanonicalUsage
from gateway.dataplane.surfaces import anthropic_messages, openai_chat
from providers.chat import Chunk, Receipt, ResponseReader
from providers.wires.registry import wire_for
from tests.factories import anthropic_request, offer_view, openai_request

OFFER = offer_view()
HALVES = ("\\ud83d", "\\ude00")
SMILE = "\U0001f600"


def event(*choices: str, usage: str = "", model: str = "small") -> bytes:
    rest = f',"usage":{usage}' if usage else ""
    return (
        f'data: {{"id":"up1","model":"{model}","choices":[{",".join(choices)}]{rest}}}\n\n'.encode()
    )


def choice(delta: str = "", *, index: int = 0, finish: str | None = None) -> str:
    reason = json.dumps(finish)
    return f'{{"index":{index},"delta":{{{delta}}},"finish_reason":{reason}}}'


def text(words: str, **more: Any) -> str:
    return choice(f'"content":"{words}"', **more)


CALL = choice(
    '"tool_calls":[{"index":0,"id":"c1","type":"function",'
    '"function":{"name":"f","arguments":"{}"}}]'
)
COUNTS = '{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}'
DONE = b"data: [DONE]\n\n"
START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m1","type":"message",'
    b'"role":"assistant","model":"small","content":[],"usage":{"input_tokens":5}}}\n\n'
)


def block_event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def read(*pieces: bytes, wire: Any = "openai", stream: bool = True, n: int = 1) -> Any:
    reader = wire_for(wire).reader(openai_request(stream=stream, n=n), OFFER)
    chunks = [chunk for piece in pieces for chunk in reader.feed(piece)]
    return reader, chunks + reader.end()


def receipt(reader: ResponseReader) -> Receipt:
    return Receipt(
        request_id="r1",
        model=OFFER.model,
        provider="acme",
        sku="acme/small",
        usage=reader.usage or CanonicalUsage(input_tokens=1, output_tokens=1),
        usage_source="provider",
        cost_pico=1,
        choices_missing=reader.choices_missing,
    )


def as_openai(reader: ResponseReader, chunks: list[Chunk], *, stream: bool = True) -> Any:
    writer = openai_chat.writer(openai_request(stream=stream), request_id="r1", created_s=1)
    writer.model = OFFER.model
    if not stream:
        return json.loads(writer.whole(chunks, receipt(reader)))
    out = b"".join(writer.chunk(chunk) for chunk in chunks) + writer.end(receipt(reader))
    data = [each.partition(b"data: ")[2] for each in out.split(b"\n\n")[:-1]]
    return [json.loads(each) for each in data if each != b"[DONE]"]


def as_anthropic(reader: ResponseReader, chunks: list[Chunk], *, stream: bool = True) -> Any:
    request = anthropic_request(stream=stream)
    writer = anthropic_messages.writer(request, request_id="r1", created_s=1)
    writer.model = OFFER.model
    if not stream:
        return json.loads(writer.whole(chunks, receipt(reader)))
    out = b"".join(writer.chunk(chunk) for chunk in chunks) + writer.end(receipt(reader))
    return [json.loads(each.partition(b"data: ")[2]) for each in out.split(b"\n\n")[:-1]]


def finishes(events: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [
        (each["index"], each["finish_reason"])
        for event in events
        for each in event.get("choices", ())
        if each.get("finish_reason")
    ]


def stop_reason(events: list[dict[str, Any]]) -> str:
    (found,) = [each["delta"]["stop_reason"] for each in events if each["type"] == "message_delta"]
    return str(found)
