"""What nobody sends by accident: the console refuses it by name, and never with a 500."""

from dataclasses import asdict
from typing import Any

import pytest
import redis
from django.test import Client

from gateway.api.parsing import StrictJSONParser
from gateway.body_limit import TOO_LARGE, BodyLimit, Message, Receive, Scope, Send
from gateway.models import RoutingPolicy
from tests.gateway.api.test_api import TENANT, _management, _post, _put
from tests.people import Person
from tests.providers.made_offers import registration, worker_key

BYTES_MAX = 10


@pytest.mark.parametrize(
    "address",
    [
        "/models/a%00b/",
        "/models/a%00b/offers.csv",
        "/requests/?model=%00",
        "/api/v1/leaderboards/a%00b/",
        "/api/v1/prices/?sku=%00",
        f"{TENANT}/routing-policy/?team=%00",
    ],
)
def test_an_address_with_a_nul_is_refused(address: str, client: Client, alice: Person) -> None:
    client.force_login(alice.user)

    assert client.get(address).status_code == 400


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00%2B14:00", "soon", "2026-13-01", "9" * 40])
def test_a_moment_that_is_none_is_left_out(
    moment: str, client: Client, alice: Person, redis_client: redis.Redis
) -> None:
    client.force_login(alice.user)

    assert client.get(f"/requests/?before={moment}").status_code == 200


@pytest.mark.parametrize("opening", ["[", '{"name":'])
def test_json_that_is_nested_too_deep_is_refused(
    opening: str, client: Client, alice: Person
) -> None:
    # when
    answer = client.post(
        f"{TENANT}/keys/",
        opening * 100_000,
        content_type="application/json",
        headers=_management(alice),
    )

    # then
    assert (answer.status_code, answer.json()["code"]) == (400, "parse_error")


def test_the_whole_api_reads_json_so(settings: Any) -> None:
    path = f"{StrictJSONParser.__module__}.{StrictJSONParser.__name__}"

    assert settings.REST_FRAMEWORK["DEFAULT_PARSER_CLASSES"] == [path]


def test_a_ceiling_beyond_all_prices_is_refused(client: Client, alice: Person) -> None:
    # when
    answer = _put(
        client,
        f"{TENANT}/routing-policy/",
        {"kind": "cheapest", "max_input_pico": 2**70},
        _management(alice),
    )

    # then
    assert answer.status_code in (400, 422)
    assert not RoutingPolicy.objects.exists()


def test_a_worker_that_says_a_nul_is_refused(
    client: Client, db: None, redis_client: redis.Redis
) -> None:
    # given
    _, plain = worker_key()
    headers = {"Authorization": f"Bearer {plain}"}
    registered = _post(client, "/api/workers/register", asdict(registration()), headers)

    # when
    answers = [
        _post(
            client, "/api/workers/register", asdict(registration(engine={"dtype": "\0"})), headers
        ),
        _post(
            client,
            "/api/workers/heartbeat",
            {
                "worker_id": registered.json()["worker_id"],
                "running": 0,
                "waiting": 0,
                "kv_cache_usage": 0,
                "totals": {"\0": 1},
            },
            headers,
        ),
    ]

    # then
    assert [answer.status_code for answer in answers] == [422, 422]


async def _reads_all(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"read"})


async def _answer(parts: list[bytes], headers: list[tuple[bytes, bytes]]) -> tuple[int, bytes]:
    left = list(parts)
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message: Message) -> None:
        sent.append(message)

    limited = BodyLimit(_reads_all, bytes_max=BYTES_MAX)
    await limited({"type": "http", "headers": headers}, receive, send)
    return sent[0]["status"], sent[1]["body"]


async def test_a_body_within_the_limit_is_read() -> None:
    assert await _answer([b"12345", b"67890"], [(b"content-length", b"10")]) == (200, b"read")


async def test_a_body_that_is_declared_too_large_is_refused_unread() -> None:
    assert await _answer([], [(b"content-length", b"11")]) == (413, TOO_LARGE)


async def test_a_body_that_grows_too_large_is_refused() -> None:
    assert await _answer([b"12345", b"67890", b"1", b"2"], []) == (413, TOO_LARGE)
