"""Whoever fills one pool of connections keeps nobody of another waiting, and is told so."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.test import Client
from psycopg.errors import QueryCanceled

from gateway.console import error_pages
from gateway.database import lanes
from gateway.database.lanes import EXPORTS, OPERATORS, PUBLIC, TENANTS, Lane
from tests.patience import PATIENCE_S, ran_s
from tests.people import Person

ALL = connection.settings_dict["OPTIONS"]["pool"]["max_size"]
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("path", "lane"),
    [
        ("/", PUBLIC),
        ("/models/some/model/", PUBLIC),
        ("/models/some/model/offers.csv", EXPORTS),
        ("/api/v1/leaderboards/m/", PUBLIC),
        ("/requests/", TENANTS),
        ("/api/v1/tenants/acme/requests/", TENANTS),
        ("/invoices/3/pdf/", EXPORTS),
        ("/invoices/3/focus.csv", EXPORTS),
        ("/admin/billing/usageevent/", OPERATORS),
        ("/api/v1/payouts/", OPERATORS),
    ],
)
def test_an_address_has_its_lane(path: str, lane: Lane) -> None:
    assert lanes.lane_of(path) is lane


def test_the_lanes_share_what_a_process_may_have() -> None:
    parts = [lane.connections(ALL) for lane in (TENANTS, PUBLIC, OPERATORS, EXPORTS)]

    assert parts == [5, 3, 2, 2]
    assert sum(parts) == ALL


@contextmanager
def filled(lane: Lane) -> Iterator[None]:
    """All connections of the lane are in use by others."""
    taken, free = threading.Barrier(lane.connections(ALL) + 1), threading.Event()

    def take() -> None:
        with lanes.within(lane):
            connection.ensure_connection()
            taken.wait(PATIENCE_S)
            free.wait(PATIENCE_S)
            connection.close()

    with ThreadPoolExecutor(lane.connections(ALL)) as others, ExitStack() as after:
        after.callback(free.set)
        for _ in range(lane.connections(ALL)):
            others.submit(take)
        taken.wait(PATIENCE_S)
        yield


@pytest.fixture
def operator_client() -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.create_superuser("ada", "ada@example.org", "correct horse"))
    return client


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As the console is started."""
    connection.close()
    connection.close_pool()
    with monkeypatch.context() as changed:
        changed.setitem(connection.settings_dict["OPTIONS"]["pool"], "timeout", 0.8)
        yield
        connection.close()
        connection.close_pool()


def get(client: Client, path: str) -> tuple[int, str, dict[str, str], float]:
    """In a thread of its own, as a request is served: it takes a connection, and gives it back."""

    def fetch() -> tuple[int, str, dict[str, str], float]:
        began = ran_s()
        try:
            answer = client.get(path)
            return (
                answer.status_code,
                answer.content.decode(),
                dict(answer.headers),
                ran_s() - began,
            )
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(fetch).result()


def test_operators_lists_take_nothing_from_tenants_pages(
    short_wait: None, alice: Person, operator_client: Client
) -> None:
    # given
    tenant_client = Client()
    tenant_client.force_login(alice.user)
    with filled(OPERATORS):
        # when
        status, page, headers, took_s = get(operator_client, "/admin/billing/usageevent/")
        # then
        assert (status, headers["Retry-After"]) == (503, "2")
        assert "Busy for a moment" in page
        assert took_s < 5
        assert get(tenant_client, "/requests/")[0] == 200
        assert get(tenant_client, "/overview/spend.csv")[0] == 200
        assert get(Client(), "/")[0] == 200
    # and then there is room again
    assert get(operator_client, "/admin/billing/usageevent/")[0] == 200


def test_a_busy_api_answers_a_problem_that_says_when_to_come_again(
    short_wait: None, alice: Person
) -> None:
    client = Client(raise_request_exception=False)
    client.force_login(alice.user)
    with filled(TENANTS):
        status, said, headers, _ = get(client, "/api/v1/tenants/aurora/requests/")
    assert (status, headers["Retry-After"]) == (503, "2")
    assert headers["Content-Type"].startswith("application/problem+json")
    assert '"code": "busy"' in said or '"code":"busy"' in said


def test_a_full_queue_refuses_at_once(short_wait: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict["OPTIONS"]["pool"], "timeout", 4.0)
    lane = Lane("narrow", share=1, statement_timeout_ms=1_000, waiting_max=1)
    with filled(lane), ThreadPoolExecutor(2) as threads:
        tried = list(threads.map(lambda _: _waited(lane), range(2)))
    assert sorted(code for code, *_ in tried) == ["busy", "busy"]
    assert min(ran for _, _, ran in tried) < 2
    assert max(took_s for _, took_s, _ in tried) >= 4


def _waited(lane: Lane) -> tuple[str, float, float]:
    """What it heard, after how many seconds, and in how many that the machine ran."""
    began, began_by_machine = time.monotonic(), ran_s()
    try:
        with lanes.within(lane):
            connection.ensure_connection()
    except OperationalError as refused:
        return error_pages.code_of(refused), time.monotonic() - began, ran_s() - began_by_machine
    finally:
        connection.close()
    raise AssertionError("there was room")


def _limit(lane: Lane) -> str:
    try:
        with lanes.within(lane), connection.cursor() as cursor:
            cursor.execute("SHOW statement_timeout")
            return str(cursor.fetchone()[0])
    finally:
        connection.close()


def _slept(lane: Lane) -> BaseException | None:
    try:
        with lanes.within(lane), connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(30)")
    except OperationalError as ended:
        return ended
    finally:
        connection.close()
    return None


def test_each_lane_has_a_limit_for_its_statements() -> None:
    quick = Lane("quick", share=1, statement_timeout_ms=50, waiting_max=1)
    with ThreadPoolExecutor(1) as thread:
        told = [thread.submit(_limit, lane).result() for lane in (TENANTS, PUBLIC, OPERATORS)]
        ended = thread.submit(_slept, quick).result()
    assert told == ["10s", "5s", "15s"]
    assert ended is not None
    assert isinstance(ended.__cause__, QueryCanceled)
    assert error_pages.code_of(ended) == "too_slow"
