"""Bodies that come compressed, with a mark, in lines, or under another header: all are read."""

import gzip
import json
import tracemalloc
import zlib
from typing import Any

import anthropic
import httpx
import openai
import pytest
import zstandard

from gateway.dataplane.inbound import codings
from gateway.errors import InvalidRequest, RequestTooLarge, UnsupportedEncoding
from providers.models import Provider
from tests.fakes.upstream import TOKENS, Exchange, FakeUpstream
from tests.gateway.world import World, add_offer, add_provider, question
from tests.patience import PATIENCE_S

BODY_BYTES_MAX = 200_000
LIMITS = {"TOKENHOUSE_BODY_BYTES_MAX": str(BODY_BYTES_MAX)}
OPENAI, ANTHROPIC = "/v1/chat/completions", "/v1/messages"
TEXT = "".join(TOKENS)
MARK = b"\xef\xbb\xbf"


def raw_deflate(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return made.compress(data) + made.flush()


def zstd_unsized(data: bytes) -> bytes:
    made = zstandard.ZstdCompressor().compressobj()
    return made.compress(data) + made.flush()


SENT = {
    "gzip": gzip.compress,
    "x-gzip": lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]),
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
    "zstd": zstandard.compress,
    "ZSTD": zstd_unsized,
    "identity": bytes,
}


async def in_lines(call: Exchange) -> None:
    """A stream with a byte order mark, whose data comes in several lines."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    choice = (
        '"choices": [{"index": 0,\ndata:  "delta": {"content": "%s"},\ndata: "finish_reason": %s}]'
    )
    events = [choice % (text, "null") for text in TOKENS] + [choice % ("", '"stop"')]
    body = "".join(f'data: {{"id": "c", "created": 1,\ndata: {event}}}\n\n' for event in events)
    usage = '{"choices": [],\ndata: "usage": {"prompt_tokens": 10, "completion_tokens": 5}}'
    await call.raw(head + MARK + f"{body}data: {usage}\n\ndata: [DONE]\n\n".encode())
    call.writer.close()


async def in_lines_of_anthropic(call: Exchange) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    start = {"id": "m", "type": "message", "role": "assistant", "model": "x", "content": []}
    usage = {"input_tokens": 10, "output_tokens": 1}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**start, "stop_reason": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": text},
            }
            for text in TOKENS
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 5},
        },
        {"type": "message_stop"},
    ]
    body = b""
    for event in events:
        data = json.dumps(event, indent=1).replace("\n", "\ndata: ")
        body += f"event: {event['type']}\ndata: {data}\n\n".encode()
    await call.raw(head + MARK + body)
    call.writer.close()


def catalogue(upstream: FakeUpstream) -> None:
    upstream.behaviours |= {"in-lines": in_lines, "in-lines-of-anthropic": in_lines_of_anthropic}
    pool = add_provider("pool", upstream.url)
    other = add_provider("other", upstream.url)
    Provider.objects.filter(pk=other.pk).update(wire=Provider.Wire.ANTHROPIC)
    add_offer(provider=pool, model="fox", upstream_model="good")
    add_offer(provider=pool, model="fox-lines", upstream_model="in-lines")
    add_offer(provider=other, model="fox-lines-a", upstream_model="in-lines-of-anthropic")


@pytest.mark.parametrize("coding", SENT)
@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC])
def test_a_compressed_body_is_read(the_world: World, path: str, coding: str) -> None:
    alice = the_world.caller()
    body = SENT[coding](MARK + json.dumps(question("fox")).encode())
    headers = {**alice.headers, "content-encoding": coding}

    answer = httpx.post(
        f"{the_world.plane.url}{path}", content=body, headers=headers, timeout=PATIENCE_S
    )

    assert answer.status_code == 200, answer.text
    assert TEXT in answer.text


@pytest.mark.parametrize(
    ("coding", "body", "status", "code"),
    [
        ("br", b"x", 415, "unsupported_content_encoding"),
        ("gzip, gzip", gzip.compress(b"{}"), 415, "unsupported_content_encoding"),
        ("gzip", gzip.compress(b" " * 50_000_000), 413, "request_too_large"),
        ("deflate", zlib.compress(b" " * 50_000_000), 413, "request_too_large"),
        ("zstd", zstandard.compress(b" " * 50_000_000), 413, "request_too_large"),
        ("gzip", b"{}", 400, "broken_body"),
        ("gzip", gzip.compress(b"{}" * 900)[:-9], 400, "broken_body"),
        ("gzip", gzip.compress(b"") * 1_000, 400, "broken_body"),
        ("deflate", zlib.compress(b"{}") + b"x", 400, "broken_body"),
        ("zstd", b"{}{}{}{}", 400, "broken_body"),
    ],
)
def test_what_cannot_be_decoded_is_refused(
    the_world: World, coding: str, body: bytes, status: int, code: str
) -> None:
    alice = the_world.caller()
    headers = {**alice.headers, "content-encoding": coding}

    answer = httpx.post(
        f"{the_world.plane.url}{OPENAI}", content=body, headers=headers, timeout=PATIENCE_S
    )

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    if status == 415:
        assert answer.headers["accept-encoding"] == "gzip, deflate, zstd"
    assert the_world.register(alice) == {"credit": 10**9, "spent": 0, "held": 0}


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress, zstandard.compress])
def test_a_bomb_never_unfolds(compress: Any) -> None:
    # given a gigabyte of spaces in at most a megabyte
    coding = {gzip.compress: "gzip", zlib.compress: "deflate"}.get(compress, "zstd")
    bomb = compress(b" " * 2**30)
    tracemalloc.start()

    with pytest.raises(RequestTooLarge):
        codings.decoded(bomb, coding, bytes_max=1_000_000)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8_000_000


def test_a_body_of_exactly_the_limit_is_read() -> None:
    for coding, compress in SENT.items():
        body = compress(b"x" * 4_096)
        assert codings.decoded(body, coding, bytes_max=4_096) == b"x" * 4_096
        if coding != "identity":
            with pytest.raises(RequestTooLarge):
                codings.decoded(body, coding, bytes_max=4_095)


def test_a_frame_that_wants_more_memory_than_others_is_refused() -> None:
    wide = zstandard.ZstdCompressionParameters(window_log=25)
    body = zstandard.ZstdCompressor(compression_params=wide).compressobj().compress(b"")
    made = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    body = made.compress(b"x" * 100) + made.flush()

    with pytest.raises(InvalidRequest):
        codings.decoded(body, "zstd", bytes_max=4_096)
    with pytest.raises(UnsupportedEncoding):
        codings.decoded(body, "zstd, gzip", bytes_max=4_096)


def test_paths_may_end_with_a_slash_and_keys_come_in_azure_s_header(the_world: World) -> None:
    alice = the_world.caller()
    url = the_world.plane.url
    headers = {"api-key": alice.plain}

    chat = httpx.post(f"{url}{OPENAI}/", json=question("fox"), headers=headers, timeout=PATIENCE_S)
    message = httpx.post(
        f"{url}{ANTHROPIC}/", json=question("fox"), headers=headers, timeout=PATIENCE_S
    )
    models = httpx.get(f"{url}/v1/models/", headers=headers, timeout=PATIENCE_S)
    one = httpx.get(f"{url}/v1/models/fox/", headers=headers, timeout=PATIENCE_S)

    assert [a.status_code for a in (chat, message, models, one)] == [200, 200, 200, 200]


def test_two_authorization_headers_are_refused(the_world: World) -> None:
    alice, bob = the_world.caller(), the_world.caller()
    headers = [("authorization", f"Bearer {who.plain}") for who in (alice, bob)]

    answer = httpx.post(
        f"{the_world.plane.url}{OPENAI}", json=question("fox"), headers=headers, timeout=PATIENCE_S
    )

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "several_api_keys")


@pytest.mark.parametrize("model", ["fox-lines", "fox-lines-a"])
def test_a_stream_with_a_mark_and_data_in_several_lines_reaches_both_sdks(
    the_world: World, model: str
) -> None:
    alice = the_world.caller()
    url, messages = the_world.plane.url, question(model)["messages"]

    with openai.OpenAI(base_url=f"{url}/v1", api_key=alice.plain, max_retries=0) as client:
        chunks = list(
            client.chat.completions.create(
                model=model, messages=messages, max_tokens=50, stream=True
            )
        )
    with anthropic.Anthropic(base_url=url, api_key=alice.plain, max_retries=0) as other:
        with other.messages.stream(model=model, messages=messages, max_tokens=50) as stream:
            message = stream.get_final_message()

    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5
    assert message.content[0].text == TEXT
    assert len(the_world.settled(alice, 2)) == 2
