"""What every caller is told in its own dialect: names, request ids, what is left of its minute, and
what a page in a browser may read."""

import socket
from datetime import UTC, datetime
from typing import Any

import anthropic
import httpx
import openai
import pytest

from billing.models import Quota, RateLimit
from gateway.dataplane.inbound import cors
from tests.fakes.upstream import Exchange, FakeUpstream
from tests.gateway.world import World, add_offer, add_provider, question
from tests.patience import PATIENCE_S

PAGE, OTHER = "https://app.example", "https://evil.example"
LIMITS = {"TOKENHOUSE_CORS_ORIGINS": f"{PAGE},http://localhost:5173"}
OPENAI, ANTHROPIC = "/v1/chat/completions", "/v1/messages"
AS_ANTHROPIC = {"anthropic-version": "2023-06-01"}


async def names_itself(call: Exchange) -> None:
    await call.answer(500, {"error": {"message": "Pool fp: out of order"}})


async def says_little(call: Exchange) -> None:
    await call.answer(500, {"error": {"message": "out of order"}})


def catalogue(upstream: FakeUpstream) -> None:
    upstream.behaviours |= {"names-itself": names_itself, "says-little": says_little}
    pool = add_provider("pool fp", upstream.url)
    add_offer(provider=pool, model="fox", upstream_model="good")
    add_offer(provider=pool, model="fox-named", upstream_model="names-itself")
    add_offer(provider=pool, model="fox-plain", upstream_model="says-little")


@pytest.mark.parametrize("model", ["fox-named", "fox-plain"])
def test_a_seller_is_named_once(the_world: World, model: str) -> None:
    answer = the_world.chat(the_world.caller(), model)

    assert answer.json()["error"]["message"] == "Pool Fp: out of order".replace(
        "Fp", "fp" if model == "fox-named" else "Fp"
    )


@pytest.mark.parametrize(
    ("quota", "words"),
    [
        ({"scope_kind": "key"}, "of key “key "),
        ({"scope_kind": "team"}, "of team “Main” has $0.000000001 left"),
        ({"scope_kind": "tenant"}, "of tenant “Tenant "),
    ],
)
def test_budgets_are_called_by_their_names(
    the_world: World, quota: dict[str, str], words: str
) -> None:
    alice = the_world.caller()
    ids = {"key": alice.key.pk, "team": alice.team.pk, "tenant": alice.tenant.pk}
    scope_id = ids[quota["scope_kind"]]
    Quota.objects.create(
        tenant=alice.tenant, scope_id=scope_id, window="day", limit_pico=1_000, **quota
    )

    error = the_world.chat(alice, "fox").json()["error"]

    assert words in error["message"]
    assert error["metadata"]["scope_id"] == str(scope_id)


@pytest.mark.parametrize(
    ("path", "headers", "is_anthropic"),
    [
        ("/v1/nowhere", AS_ANTHROPIC, True),
        ("/v1/nowhere", {}, False),
        ("/v1/messages/nowhere", {}, True),
        ("/v1/models", {"x-api-key": "tk-wrong"}, True),
        ("/v1/models", {"authorization": "Bearer tk-wrong"}, False),
        ("/v1/models/no-such-fox", {**AS_ANTHROPIC, "x-api-key": "tk-wrong"}, True),
        ("/", {}, False),
    ],
)
def test_errors_have_the_caller_s_shape_at_every_path(
    the_world: World, path: str, headers: dict[str, str], is_anthropic: bool
) -> None:
    body = httpx.get(f"{the_world.plane.url}{path}", headers=headers, timeout=PATIENCE_S).json()

    assert ("request_id" in body) is is_anthropic
    assert (body.get("type") == "error") is is_anthropic
    assert ("param" in body["error"]) is not is_anthropic


def test_sdks_find_the_request_id_in_answers_and_refusals(the_world: World) -> None:
    alice = the_world.caller()
    url = the_world.plane.url
    user: Any = question("fox")["messages"]
    with openai.OpenAI(base_url=f"{url}/v1", api_key=alice.plain, max_retries=0) as client:
        whole = client.chat.completions.create(model="fox", messages=user, max_tokens=5)
        with pytest.raises(openai.NotFoundError) as refused:
            client.chat.completions.create(model="no-fox", messages=user, max_tokens=5)
    with anthropic.Anthropic(base_url=url, api_key=alice.plain, max_retries=0) as other:
        message = other.messages.create(model="fox", messages=user, max_tokens=5)
        with pytest.raises(anthropic.NotFoundError) as also:
            other.messages.create(model="no-fox", messages=user, max_tokens=5)

    ids = {whole._request_id, refused.value.request_id, message._request_id, also.value.request_id}
    assert len(ids) == 4
    assert None not in ids
    booked = {event["request_id"] for event in the_world.settled(alice, 2)}
    assert booked == {whole._request_id, message._request_id}
    models = httpx.get(f"{url}/v1/models", headers=alice.headers, timeout=PATIENCE_S)
    assert models.headers["request-id"] == models.headers["x-request-id"]


def test_the_rest_of_the_minute_is_told_in_the_headers_of_both_vendors(the_world: World) -> None:
    # given a team's limit that is tighter in requests, and a key's in tokens
    alice = the_world.caller()
    kinds = [("team", alice.team.pk, 40, 90_000), ("key", alice.key.pk, 50, 80_000)]
    for kind, scope_id, rpm, tpm in kinds:
        RateLimit.objects.create(
            tenant=alice.tenant, scope_kind=kind, scope_id=scope_id, rpm=rpm, tpm=tpm
        )

    # when two calls fall into one minute, as they do within three
    pairs = [[the_world.chat(alice, "fox", stream=bool(n)) for n in range(2)] for _ in range(2)]
    first, second = next(
        pair for pair in pairs if pair[0].headers["x-ratelimit-remaining-requests"] > "00"
    )
    message = httpx.post(
        f"{the_world.plane.url}{ANTHROPIC}",
        json=question("fox"),
        headers=alice.headers,
        timeout=PATIENCE_S,
    )

    # then of each unit the tighter limit is told, with this call's own share taken off
    assert first.headers["x-ratelimit-limit-requests"] == "40"
    assert first.headers["x-ratelimit-limit-tokens"] == "80000"
    assert first.headers["x-ratelimit-remaining-tokens"] == str(80_000 - 64 - 51 - 16 - 50)
    left = int(second.headers["x-ratelimit-remaining-requests"])
    assert left in (39, int(first.headers["x-ratelimit-remaining-requests"]) - 1)
    assert 1 <= int(first.headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 60
    assert message.headers["anthropic-ratelimit-requests-limit"] == "40"
    assert int(message.headers["anthropic-ratelimit-requests-remaining"]) < 40
    reset = datetime.fromisoformat(message.headers["anthropic-ratelimit-tokens-reset"])
    assert 0 <= (reset - datetime.now(UTC)).total_seconds() <= 60
    assert not [name for name in message.headers if name.startswith("x-ratelimit")]
    unlimited = the_world.chat(the_world.caller(), "fox")
    assert not [name for name in unlimited.headers if "ratelimit" in name]


def test_a_refusal_by_a_limit_tells_what_is_left(the_world: World) -> None:
    alice = the_world.caller()
    RateLimit.objects.create(
        tenant=alice.tenant, scope_kind="key", scope_id=alice.key.pk, rpm=1, tpm=70_000
    )
    answers = [the_world.chat(alice, "fox") for _ in range(3)]

    refused = next(answer for answer in answers if answer.status_code == 429)

    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert int(refused.headers["x-ratelimit-remaining-tokens"]) > 60_000


def test_a_page_of_a_listed_origin_may_call(the_world: World) -> None:
    alice = the_world.caller()
    url = f"{the_world.plane.url}{OPENAI}"
    ask = {
        "origin": PAGE,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type, x-stainless-lang",
    }

    asked = httpx.options(url, headers=ask, timeout=PATIENCE_S)
    called = httpx.post(
        url, json=question("fox"), headers={**alice.headers, "origin": PAGE}, timeout=PATIENCE_S
    )
    refused = httpx.post(
        url, json=question("no-fox"), headers={**alice.headers, "origin": PAGE}, timeout=PATIENCE_S
    )

    assert asked.status_code == 204
    assert asked.headers["access-control-allow-headers"] == ask["access-control-request-headers"]
    assert "POST" in asked.headers["access-control-allow-methods"]
    for answer in (asked, called, refused):
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert answer.headers["vary"] == "origin"
    assert (called.status_code, refused.status_code) == (200, 404)


def test_a_page_of_another_origin_may_not(the_world: World) -> None:
    url = f"{the_world.plane.url}{OPENAI}"
    for origin in (OTHER, f"{PAGE}.evil.example", "null"):
        ask = {"origin": origin, "access-control-request-method": "POST"}
        answer = httpx.options(url, headers=ask, timeout=PATIENCE_S)
        assert "access-control-allow-origin" not in answer.headers


def test_without_a_list_nothing_is_said_of_origins() -> None:
    asked = {b"origin": PAGE.encode()}

    assert cors.head_of(asked, frozenset()) == []
    assert (b"access-control-allow-origin", PAGE.encode()) in cors.head_of(asked, frozenset({"*"}))
    assert cors.head_of({}, frozenset({"*"})) == []


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        (OPENAI, "tk-wrong", b"401"),
        ("/v1/nowhere", "tk-wrong", b"404"),
        (ANTHROPIC, "", b"401"),
    ],
)
@pytest.mark.parametrize("size", [100_000, 20_000_000])
def test_a_caller_that_is_still_sending_hears_why_it_is_refused(
    the_world: World, path: str, key: str, status: bytes, size: int
) -> None:
    head = f"POST {path} HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {key}\r\n"
    with socket.create_connection(
        ("127.0.0.1", the_world.plane.port), timeout=PATIENCE_S
    ) as client:
        client.sendall(f"{head}content-length: {size}\r\n\r\n".encode())
        client.sendall(b" " * size)
        answer = client.recv(4096)

    assert answer.startswith(b"HTTP/1.1 " + status)


def test_a_body_above_the_limit_is_refused_with_words(the_world: World) -> None:
    alice = the_world.caller()
    head = f"POST {OPENAI} HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {alice.plain}\r\n"
    size = 40 * 1024 * 1024
    with socket.create_connection(
        ("127.0.0.1", the_world.plane.port), timeout=PATIENCE_S
    ) as client:
        client.sendall(f"{head}content-length: {size}\r\n\r\n".encode())
        client.sendall(b" " * size)
        answer = client.recv(4096)

    assert answer.startswith(b"HTTP/1.1 413")


def test_who_sends_nothing_more_is_answered_all_the_same(the_world: World) -> None:
    # given a caller that promises a body and waits for the answer instead
    head = f"POST {OPENAI} HTTP/1.1\r\nhost: t\r\ncontent-length: 50000\r\n"
    with socket.create_connection(
        ("127.0.0.1", the_world.plane.port), timeout=PATIENCE_S
    ) as client:
        client.sendall(f"{head}expect: 100-continue\r\n\r\n".encode())
        asked_first = client.recv(4096)
    with socket.create_connection(
        ("127.0.0.1", the_world.plane.port), timeout=PATIENCE_S
    ) as client:
        client.sendall(f"{head}\r\n".encode())
        waited = client.recv(4096)

    assert asked_first.startswith(b"HTTP/1.1 401")
    assert waited.startswith(b"HTTP/1.1 401")
