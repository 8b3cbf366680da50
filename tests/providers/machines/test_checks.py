"""Silence demotes, failed direct checks remove, success restores: against a real server."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from django.core.management import call_command

from providers.machines import checks, pools, workers
from providers.machines.pool_listing import PoolRefused
from providers.machines.pools import Facts, Terms
from providers.market import credentials
from providers.models import Credential, Offer, Provider, Worker
from tests.providers.made_offers import NOW, registration, worker_key

pytestmark = pytest.mark.django_db


class Machine:
    """A loopback server that answers with whatever status it is told."""

    def __init__(self) -> None:
        self.status = 200
        self.models = b'{"data": [{"id": "Qwen/Qwen3-32B", "max_model_len": 4096}]}'
        self.asked: list[tuple[str, str]] = []
        machine = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                secret = self.headers.get("authorization") or self.headers.get("x-api-key", "")
                machine.asked.append((self.path, secret))
                self.send_response(machine.status)
                self.send_header("content-length", str(len(machine.models)))
                self.end_headers()
                self.wfile.write(machine.models)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    machine.thread.start()
    yield machine
    machine.stop()


def _join(machine: Machine) -> Worker:
    key, _ = worker_key()
    return workers.register(key=key, registration=registration(base_url=machine.url), now=NOW)


def _state() -> str:
    return Offer.objects.get().state


def test_a_living_worker_is_asked_with_its_bearer(machine: Machine) -> None:
    # given
    _join(machine)

    # when
    moved = checks.check_all(now=NOW)

    # then
    assert moved == 0
    assert _state() == Offer.State.LIVE
    assert machine.asked == [("/health", "Bearer worker-bearer-secret")]


def test_silence_demotes_a_worker_that_still_answers(machine: Machine) -> None:
    # given
    _join(machine)

    # when
    checks.check_all(now=NOW + timedelta(seconds=16))

    # then
    assert _state() == Offer.State.DEMOTED
    assert Offer.objects.get().state_reason == "no heartbeat for 16 s"


def test_two_failed_checks_remove_and_one_success_restores(machine: Machine) -> None:
    # given
    _join(machine)
    states = []

    # when
    for status in (503, 503, 200):
        machine.status = status
        checks.check_all(now=NOW)
        states.append(_state())

    # then
    assert states == [Offer.State.LIVE, Offer.State.REMOVED, Offer.State.LIVE]


def test_a_machine_that_is_gone_is_removed(machine: Machine) -> None:
    # given
    _join(machine)
    machine.stop()

    # when
    for _ in range(2):
        checks.check_all(now=NOW)

    # then
    assert _state() == Offer.State.REMOVED
    assert "no answer" in Offer.objects.get().state_reason


def test_an_offer_that_an_operator_disabled_stays_so(machine: Machine) -> None:
    # given
    _join(machine)
    Offer.objects.update(state=Offer.State.DISABLED)

    # when
    checks.check_all(now=NOW)

    # then
    assert _state() == Offer.State.DISABLED


def test_a_pool_sells_what_it_serves_and_is_polled(machine: Machine) -> None:
    # given
    (offer,) = pools.attach(
        name="lab",
        base_url=machine.url,
        bearer="pool-secret",
        terms=Terms(input_usd=Decimal("0.10"), output_usd=Decimal("0.40")),
        recorded_by="test",
        now=NOW,
    )
    states = []

    # when
    for status in (200, 500, 500, 200):
        machine.status = status
        checks.check_all(now=NOW)
        states.append(_state())

    # then
    assert (offer.sku, offer.model.slug) == ("pool-lab/qwen/qwen3-32b", "qwen3-32b")
    assert offer.context_length == 4096
    assert states == ["live", "demoted", "removed", "live"]
    assert set(machine.asked) == {("/v1/models", "Bearer pool-secret")}


def test_a_pool_is_asked_in_its_own_wire(machine: Machine) -> None:
    # given
    pool = _pool(machine)
    Provider.objects.update(wire=Provider.Wire.ANTHROPIC, base_url=machine.url)
    machine.asked.clear()

    # when
    checks.check_all(now=NOW)

    # then: with x-api-key and not with a bearer
    assert machine.asked == [("/v1/models", "pool-secret")]
    assert Offer.objects.get() == pool


@pytest.mark.parametrize(
    ("status", "body", "dead", "doubted"),
    [
        (401, b"{}", "answered 401 when asked for its models", False),
        (403, b'{"error":{"code":"account_suspended"}}', "answered 403 when asked", False),
        (403, b'{"error":{"message":"Missing scopes: api.model.read"}}', "", False),
        (200, b'{"data":[]}', "", False),
        (404, b"", "", False),
        (503, b"", "", True),
    ],
)
def test_a_doubted_credential_is_dead_where_the_provider_says_so_of_it(
    status: int, body: bytes, dead: str, doubted: bool, machine: Machine
) -> None:
    # given
    pool = _pool(machine)
    credential = Credential.objects.get()
    now = credential.created_at + timedelta(seconds=2)
    credentials.doubt(provider_id=pool.provider_id, seen_at=now)
    machine.status, machine.models = status, body
    machine.asked.clear()

    # when
    buried = checks.settle_doubts(now=now)

    # then
    credential.refresh_from_db()
    assert (buried, credential.doubted_at is not None) == (int(bool(dead)), doubted)
    assert credential.dead_reason.startswith(dead)
    assert bool(credential.dead_reason) == bool(dead)
    assert machine.asked == [("/v1/models", "Bearer pool-secret")]


def _pool(machine: Machine) -> Offer:
    (offer,) = pools.attach(
        name="lab",
        base_url=machine.url,
        bearer="pool-secret",
        terms=Terms(input_usd=Decimal("0.10"), output_usd=Decimal("0.40")),
        recorded_by="test",
        now=NOW,
    )
    return offer


def test_a_pools_secret_is_read_from_a_file(machine: Machine, tmp_path: Path) -> None:
    # given
    secret = tmp_path / "key"
    secret.write_text("pool-secret\n")

    # when
    call_command(
        "attach_pool",
        "lab",
        machine.url,
        "--bearer-file",
        str(secret),
        "--input-usd",
        "0.10",
        "--output-usd",
        "0.40",
    )

    # then
    assert machine.asked == [("/v1/models", "Bearer pool-secret")]
    assert Offer.objects.get().sku == "pool-lab/qwen/qwen3-32b"


@pytest.mark.parametrize(
    "models",
    [
        b'{"data": [{"id": "a\\r\\nset-cookie: x"}]}',
        b'{"data": [{"id": "a\\u0000"}]}',
        b'{"data": [{"id": "=1+1"}]}',
        b'{"data": [{"id": 7}]}',
        b'["a"]',
        b"<html>",
    ],
)
def test_a_server_that_lists_no_names_is_refused(models: bytes, machine: Machine) -> None:
    # given
    machine.models = models

    # then
    with pytest.raises(PoolRefused):
        pools.attach(
            name="lab",
            base_url=machine.url,
            bearer="",
            terms=Terms(input_usd=Decimal("0.10"), output_usd=Decimal("0.40")),
            recorded_by="test",
            now=NOW,
        )
    assert not Offer.objects.exists()


def test_a_server_that_lists_nothing_is_attached_by_name_and_asked_for_its_health(
    machine: Machine,
) -> None:
    # given
    terms = Terms(Decimal("0.10"), Decimal("0.40"))
    kept = {"name": "hf", "bearer": "", "terms": terms, "recorded_by": "test", "now": NOW}
    pools.attach(base_url=machine.url, facts=Facts(models=["Qwen/Qwen3-0.6B"]), **kept)
    assert machine.asked[0] == ("/health", "")
    assert "/v1/models" not in {path for path, _ in machine.asked}
    machine.asked.clear()

    # when
    checks.check_all(now=NOW)

    # then
    assert Offer.objects.get().upstream_model == "Qwen/Qwen3-0.6B"
    assert {path for path, _ in machine.asked} == {"/health"}
    machine.status = 503
    checks.check_all(now=NOW)
    assert _state() == Offer.State.DEMOTED


@pytest.mark.parametrize(("status", "model"), [(500, "qwen"), (200, "=name"), (200, "a" * 200)])
def test_a_named_model_that_cannot_be_is_refused(status: int, model: str, machine: Machine) -> None:
    machine.status = status
    terms = Terms(Decimal("0.10"), Decimal("0.40"))
    with pytest.raises(PoolRefused):
        pools.attach(
            name="hf",
            base_url=machine.url,
            bearer="",
            terms=terms,
            recorded_by="test",
            now=NOW,
            facts=Facts(models=[model]),
        )
    assert not Offer.objects.exists()


def test_a_pools_load_is_read_beside_its_api_and_forgotten_when_it_is_silent(
    machine: Machine,
) -> None:
    # given
    terms = Terms(Decimal("0.10"), Decimal("0.40"))
    pools.attach(
        name="lab", base_url=machine.url, bearer="key", terms=terms, recorded_by="test", now=NOW
    )
    machine.models = b'vllm:num_requests_running{model_name="m"} 4.0\n'

    # when
    known = checks.read_loads(now=NOW)

    # then
    pool = Provider.objects.get()
    assert known == 1
    assert machine.asked[-1] == ("/metrics", "Bearer key")
    assert pool.load == {"engine": "vllm", "running": 4, "at": NOW.isoformat()}

    # when: a page without end, then none at all
    machine.models = b"vllm:num_requests_running 4\n" * 60_000
    assert checks.read_loads(now=NOW) == 0
    machine.stop()
    assert checks.read_loads(now=NOW) == 0
    pool.refresh_from_db()
    assert pool.load == {}
