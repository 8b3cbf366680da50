"""What a caller is refused: the right status in its own dialect, nothing charged, and a note."""

import base64
import json
import socket
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from billing.holding import holds
from billing.models import Quota, RateLimit
from gateway.models import ApiKey
from tests.fakes.upstream import FakeUpstream
from tests.gateway.world import (
    Caller,
    World,
    add_offer,
    add_provider,
    eventually,
    question,
)
from tests.patience import PATIENCE_S

BODY_BYTES_MAX = 100_000
LIMITS = {"TOKENHOUSE_BODY_BYTES_MAX": str(BODY_BYTES_MAX)}
UNTOUCHED = {"credit": 10**9, "spent": 0, "held": 0}
OPENAI, ANTHROPIC = "/v1/chat/completions", "/v1/messages"


def png_url(width: int, height: int) -> str:
    """The header of a picture says its size; the rest does not matter here."""
    head = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", width, height)
    return "data:image/png;base64," + base64.b64encode(head + bytes(40)).decode()


def catalogue(upstream: FakeUpstream) -> None:
    pool = add_provider("pool", upstream.url)
    add_offer(provider=pool, model="fox-large", upstream_model="good")
    add_offer(provider=pool, model="fox-small", upstream_model="good")


def send(
    world: World, path: str, body: bytes | dict[str, Any], headers: dict[str, str]
) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(
        f"{world.plane.url}{path}", content=content, headers=headers, timeout=PATIENCE_S
    )


def error_of(answer: httpx.Response, path: str) -> dict[str, Any]:
    body = answer.json()
    if path == ANTHROPIC:
        assert body["type"] == "error"
    return dict(body["error"])


@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer sk-something-else"},
        {"authorization": "Bearer tk-nobody-knows-this"},
        {"authorization": f"Bearer tk-{'x' * 5000}"},
        {"x-api-key": "tk-nobody-knows-this-either"},
    ],
)
def test_a_missing_or_wrong_key_is_401(
    the_world: World, path: str, headers: dict[str, str]
) -> None:
    # given / when
    answer = send(the_world, path, question("fox-large"), headers)
    # then
    assert answer.status_code == 401
    assert error_of(answer, path)["type"] in ("authentication_error", "invalid_request_error")


def test_a_revoked_key_fails_at_its_next_call(the_world: World) -> None:
    # given
    alice = the_world.caller()
    assert the_world.chat(alice, "fox-large").status_code == 200
    before = the_world.register(alice)
    # when
    holds.set_key_status(the_world.redis, alice.tenant.pk, alice.key.pk, "revoked")
    answer = the_world.chat(alice, "fox-large")
    # then
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "revoked_api_key"
    assert the_world.register(alice) == before


def test_an_expired_key_is_401(the_world: World) -> None:
    # given
    alice = the_world.caller()
    ApiKey.objects.filter(pk=alice.key.pk).update(
        expires_at=datetime.now(UTC) - timedelta(minutes=1)
    )
    # when
    answer = the_world.chat(alice, "fox-large")
    # then
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "expired_api_key"


def test_a_key_without_the_scope_is_403(the_world: World) -> None:
    # given
    alice = the_world.caller()
    ApiKey.objects.filter(pk=alice.key.pk).update(scopes=["management"])
    # when / then
    assert the_world.chat(alice, "fox-large").status_code == 403


def test_a_model_that_the_key_may_not_use_is_403(the_world: World) -> None:
    # given
    alice = the_world.caller()
    ApiKey.objects.filter(pk=alice.key.pk).update(models_allowed=["fox-small"])
    # when
    answer = the_world.chat(alice, "fox-large")
    # then
    assert answer.status_code == 403
    assert the_world.chat(alice, "fox-small").status_code == 200


@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC])
def test_an_unknown_model_is_404_with_the_nearest_names(the_world: World, path: str) -> None:
    # given
    alice = the_world.caller()
    # when
    answer = send(the_world, path, question("fox-lrage"), alice.headers)
    # then
    assert answer.status_code == 404
    assert "fox-large" in error_of(answer, path)["message"]
    assert the_world.register(alice) == UNTOUCHED


def test_over_the_credit_is_402_and_changes_nothing(the_world: World) -> None:
    # given
    alice = the_world.caller(credit_nano=1_000)
    keys_before = set(the_world.redis.keys(f"*:{alice.tenant.pk}*"))
    # when
    answer = the_world.chat(alice, "fox-large")
    # then
    error = answer.json()["error"]
    assert answer.status_code == 402
    assert error["metadata"]["scope"] == "tenant"
    assert error["metadata"]["left_usd"] == "0.000001"
    assert the_world.register(alice) == {"credit": 1_000, "spent": 0, "held": 0}
    assert set(the_world.redis.keys(f"*:{alice.tenant.pk}*")) == keys_before
    assert the_world.events(alice) == []


def test_over_a_key_s_quota_is_402_naming_the_key(the_world: World) -> None:
    # given
    alice = the_world.caller()
    Quota.objects.create(
        tenant=alice.tenant, scope_kind="key", scope_id=alice.key.pk, window="day", limit_pico=1000
    )
    # when
    answer = the_world.chat(alice, "fox-large")
    # then
    error = answer.json()["error"]
    assert answer.status_code == 402
    assert (error["metadata"]["scope"], error["metadata"]["window"]) == ("key", "day")
    assert the_world.register(alice) == UNTOUCHED


def test_over_the_request_rate_is_429_until_the_minute_is_over(the_world: World) -> None:
    # given
    alice = the_world.caller()
    RateLimit.objects.create(tenant=alice.tenant, scope_kind="key", scope_id=alice.key.pk, rpm=1)
    answers = [the_world.chat(alice, "fox-large") for _ in range(3)]
    # when the minute may have turned once, at most
    refused = next(answer for answer in answers if answer.status_code == 429)
    # then
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert "x-should-retry" not in refused.headers
    assert refused.json()["error"]["metadata"]["window"] == "rpm"


@pytest.mark.parametrize(
    ("limits", "window", "wanted"),
    [({"rpm": 0}, "rpm", 1), ({"concurrency": 0}, "concurrency", 1), ({"tpm": 183}, "tpm", 184)],
)
@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC])
def test_what_can_never_fit_is_refused_with_the_numbers(
    the_world: World, path: str, limits: dict[str, int], window: str, wanted: int
) -> None:
    # given a question of 54 bytes in one message, and 50 tokens of answer: 64 + 54 + 16 + 50
    alice = the_world.caller()
    RateLimit.objects.create(tenant=alice.tenant, scope_kind="key", scope_id=alice.key.pk, **limits)
    # when
    answer = send(the_world, path, question("fox-large"), alice.headers)
    # then
    error = error_of(answer, path)
    assert (answer.status_code, error["code"]) == (400, "exceeds_rate_limit")
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers
    said = error["metadata"]
    assert (said["window"], said["wanted"], said["limit"]) == (window, wanted, limits[window])
    assert the_world.register(alice) == UNTOUCHED


def test_a_small_image_is_bounded_by_its_size(the_world: World) -> None:
    # given a limit far below the context, and a picture of 64 by 48 pixels
    alice = the_world.caller()
    RateLimit.objects.create(
        tenant=alice.tenant, scope_kind="key", scope_id=alice.key.pk, tpm=6_000
    )
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": png_url(64, 48)}},
    ]
    messages = [{"role": "user", "content": parts}]
    # when
    answer = the_world.chat(alice, "fox-large", messages=messages)
    elsewhere = [{"type": "image_url", "image_url": {"url": "data:image/x-unknown;base64,aGk="}}]
    of_unknown_size = the_world.chat(
        alice, "fox-large", messages=[{"role": "user", "content": elsewhere}]
    )
    # then
    assert answer.status_code == 200
    assert of_unknown_size.json()["error"]["code"] == "exceeds_rate_limit"
    assert of_unknown_size.json()["error"]["metadata"]["wanted"] == 8192 + 50


@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'{"model": "fox-large", "max_tokens": 5, "messages": "hello"}', 400),
        (b'{"model": "fox-large", "max_tokens": 5, "messages": []}', 400),
        (b'{"model": 7, "max_tokens": 5, "messages": [{"role":"user","content":"x"}]}', 400),
        (
            b'{"model":"fox-large","max_tokens":-1,"messages":[{"role":"user","content":"x"}]}',
            400,
        ),
        (
            b'{"model":"fox-large","max_tokens":1e300,"messages":[{"role":"user","content":"x"}]}',
            400,
        ),
        (
            b'{"model":"fox-large","max_tokens":5,"temperature":NaN,'
            b'"messages":[{"role":"user","content":"x"}]}',
            400,
        ),
        (
            b'{"model":"fox-large","max_tokens":5,"messages":[{"role":"user","content":"x"}],"x":'
            + b"[" * 40_000
            + b"]" * 40_000
            + b"}",
            400,
        ),
        (b'{"model": "fox-large", "pad": "' + b"x" * BODY_BYTES_MAX + b'"}', 413),
        (b"\xff\xfe\x00", 400),
    ],
)
def test_a_bad_body_is_refused_in_the_caller_s_dialect(
    the_world: World, path: str, body: bytes, status: int
) -> None:
    # given
    alice = the_world.caller()
    # when
    answer = send(the_world, path, body, alice.headers)
    # then
    assert answer.status_code == status, answer.text
    assert error_of(answer, path)["message"]
    assert the_world.register(alice) == UNTOUCHED
    assert the_world.plane.process.poll() is None  # type: ignore[union-attr]


def test_a_body_without_a_declared_length_is_cut_off_at_the_limit(the_world: World) -> None:
    # given
    alice = the_world.caller()
    chunk = b"x" * 50_000
    # when
    with socket.create_connection(("127.0.0.1", the_world.plane.port)) as client:
        client.sendall(
            f"POST {OPENAI} HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {alice.plain}\r\n"
            "transfer-encoding: chunked\r\n\r\n".encode()
        )
        for _ in range(3):
            client.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        answer = client.recv(1000)
    # then
    assert answer.startswith(b"HTTP/1.1 413")


def test_wrong_paths_and_methods_are_404_and_405(the_world: World) -> None:
    assert httpx.get(f"{the_world.plane.url}/admin/", timeout=PATIENCE_S).status_code == 404
    assert httpx.get(f"{the_world.plane.url}{OPENAI}", timeout=PATIENCE_S).status_code == 405
    assert httpx.post(f"{the_world.plane.url}/v1/models", timeout=PATIENCE_S).status_code == 405


def test_a_refusal_is_noted_for_the_console(the_world: World) -> None:
    # given
    alice: Caller = the_world.caller(credit_nano=0)
    # when
    answer = the_world.chat(alice, "fox-large")
    # then
    request_id = answer.headers["x-request-id"]

    def notes() -> list[dict[str, Any]]:
        found = [json.loads(entry[b"r"]) for _, entry in the_world.redis.xrange("refusals")]
        return [note for note in found if note["request_id"] == request_id]

    eventually(lambda: bool(notes()))
    (note,) = notes()
    assert (note["tenant"], note["status"], note["code"]) == (alice.tenant.pk, 402, "over_budget")
    assert note["model"] == "fox-large"
