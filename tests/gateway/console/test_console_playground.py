"""The playground: an ordinary request with a key of its own, answers and refusals passed on."""

import json
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
import redis
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from gateway.console import playground
from gateway.console.playground import Question
from gateway.kinds import Role
from gateway.models import ApiKey
from gateway.tenants import keys
from tests.gateway.console_rows import offer
from tests.people import Person, _join

ANSWER = b'data: {"choices":[{"delta":{"content":"Hello."}}]}\n\ndata: [DONE]\n\n'
ASKED = Question(key="tk-good", model="small", prompt="Say hello.")


class Api(BaseHTTPRequestHandler):
    """Answers one key with a stream, and any other with 401 in OpenAI's shape."""

    seen: list[dict[str, Any]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append(body)
        good = self.headers["authorization"] == "Bearer tk-good"
        answer = ANSWER if good else b'{"error": {"message": "No such key."}}'
        self.send_response(200 if good else 401)
        self.send_header("x-request-id", "r-1")
        self.send_header("x-tokenhouse-offer", "acme/small")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing of a test's server belongs in its output."""


@pytest.fixture
def api(settings: Settings) -> Iterator[type[Api]]:
    Api.seen.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    settings.PUBLIC_API_URL = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Api
    server.shutdown()
    server.server_close()
    thread.join()


async def _events(question: Question) -> str:
    return b"".join([part async for part in playground.answer(question)]).decode()


async def test_an_answer_is_passed_on_behind_its_head(api: type[Api]) -> None:
    said = await _events(ASKED)

    head, _, rest = said.partition("\n\n")
    assert json.loads(head.removeprefix("event: head\ndata: ")) == {
        "status": 200,
        "request_id": "r-1",
        "offer": "acme/small",
    }
    assert rest.encode() == ANSWER
    assert api.seen == [playground.body_of(ASKED)]


async def test_a_refusal_is_said_in_the_apis_words(api: type[Api]) -> None:
    said = await _events(Question(key="tk-bad", model="small", prompt="x"))

    assert '"status": 401' in said
    assert said.endswith('event: refused\ndata: {"message": "No such key."}\n\n')


async def test_a_key_that_is_none_is_not_sent(api: type[Api]) -> None:
    said = await _events(Question(key="tk-a\r\nx-evil: 1", model="small", prompt="x"))

    assert said == 'event: refused\ndata: {"message": "This is not an API key."}\n\n'
    assert api.seen == []


async def test_an_api_that_is_away_is_said(settings: Settings) -> None:
    settings.PUBLIC_API_URL = "http://127.0.0.1:9"

    assert "The API did not answer" in await _events(ASKED)


def test_beginning_makes_a_key_that_ends_within_the_hour(
    alice: Person, client: Client, redis_client: redis.Redis
) -> None:
    # given something to call
    offer("in-house", "small", kind="in_house")
    client.force_login(alice.user)

    # when
    page = client.post("/playground/")

    # then
    key = keys.find(page.context["plain"])
    assert key is not None
    assert key.tenant == alice.tenant
    assert key.expires_at is not None
    assert key.expires_at <= timezone.now() + timedelta(hours=1)
    assert "no-store" in page["Cache-Control"]


def test_a_viewer_cannot_begin(alice: Person, client: Client, redis_client: redis.Redis) -> None:
    client.force_login(_join("vera", alice.tenant, alice.team, Role.VIEWER).user)

    assert client.post("/playground/").status_code == 403
    assert not ApiKey.objects.exists()
