"""Connections to Postgres that died, or that nobody answers on, are noticed in time."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from django.core.management import get_commands
from django.db import connection

from gateway.database import connections, time_limits
from tests.patience import ran_s

PLACES = connection.settings_dict["OPTIONS"]["pool"]["max_size"]


def _pid() -> int:
    """Of a connection taken from the pool, and given back."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            return int(cursor.fetchone()[0])
    finally:
        connection.close()


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_died_in_the_pool_is_replaced() -> None:
    # given: this thread has a connection of its own, or it would end the one it runs on
    connection.ensure_connection()
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(_pid).result()

        # when
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [first])

        # then: every place of the pool is good, the one that died too
        pids = [thread.submit(_pid).result() for _ in range(PLACES)]
        assert first not in pids


class Silenced:
    """A TCP port on loopback that leads to the server; once silent it swallows what both say."""

    def __init__(self, leads_to: Path) -> None:
        self._leads_to = leads_to
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.is_silent = threading.Event()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(str(self._leads_to))
                self._open += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65_536):
                if not self.is_silent.is_set():
                    sink.sendall(piece)

    def close(self) -> None:
        for each in (self._server, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@pytest.fixture
def silenced(db: None) -> Iterator[Silenced]:
    proxy = Silenced(Path(connection.settings_dict["HOST"]) / ".s.PGSQL.5432")
    yield proxy
    proxy.close()


def _connected(proxy: Silenced, *, answer_timeout_s: int) -> psycopg.Connection[tuple[object, ...]]:
    at = connection.settings_dict
    url = f"postgresql://{at['USER']}@127.0.0.1:{proxy.port}/{at['NAME']}"
    made = connections.django_database(url, connections_max=1, answer_timeout_s=answer_timeout_s)
    options = {name: made["OPTIONS"][name] for name in (*connections.TCP, "connect_timeout")}
    kind = made["OPTIONS"]["pool"]["connection_class"]
    assert issubclass(kind, time_limits.TimeLimitedConnection)
    opened: psycopg.Connection[tuple[object, ...]] = kind.connect(
        host=made["HOST"],
        port=made["PORT"],
        user=made["USER"],
        dbname=made["NAME"],
        autocommit=True,
        **options,
    )
    return opened


def test_a_server_that_falls_silent_is_given_up_in_time(silenced: Silenced) -> None:
    # given
    opened = _connected(silenced, answer_timeout_s=1)
    assert opened.execute("SELECT 1").fetchone() == (1,)
    # when
    silenced.is_silent.set()
    began, began_by_machine = time.monotonic(), ran_s()
    with pytest.raises(psycopg.OperationalError, match="said nothing for 1 s"):
        opened.execute("SELECT 2")
    # then: the thread is free, and nobody takes a late answer for another question's
    assert time.monotonic() - began > 0.9
    assert ran_s() - began_by_machine < 10
    assert opened.closed


def test_a_slow_answer_within_its_time_is_an_answer(silenced: Silenced) -> None:
    opened = _connected(silenced, answer_timeout_s=20)
    assert opened.execute("SELECT 1 FROM pg_sleep(1.2)").fetchone() == (1,)
    opened.close()


def test_a_host_that_is_gone_is_noticed_by_tcp(silenced: Silenced) -> None:
    # given
    opened = _connected(silenced, answer_timeout_s=20)
    # when
    with socket.socket(fileno=os.dup(opened.pgconn.socket)) as ours:
        told = [
            ours.getsockopt(socket.IPPROTO_TCP, option)
            for option in (
                socket.TCP_USER_TIMEOUT,
                socket.TCP_KEEPIDLE,
                socket.TCP_KEEPINTVL,
                socket.TCP_KEEPCNT,
            )
        ]
        is_kept = ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    opened.close()
    # then
    assert (told, is_kept) == ([10_000, 5, 2, 3], 1)


def test_a_socket_in_the_file_system_has_no_tcp_options() -> None:
    made = connections.django_database(
        "postgresql://u@/name?host=/run/folder", connections_max=1, answer_timeout_s=1
    )
    assert connections.TCP.keys() & made["OPTIONS"].keys() == set()


def _limits() -> tuple[str, str, float | None]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('statement_timeout'), current_setting('lock_timeout')"
        )
        statement, lock = cursor.fetchone()
    assert isinstance(connection.connection, time_limits.TimeLimitedConnection)
    return statement, lock, connection.connection.answer_timeout_s


@pytest.mark.django_db(transaction=True)
def test_a_migration_takes_its_own_time_and_waits_as_briefly_for_locks() -> None:
    # given
    before = _limits()
    # when
    with time_limits.unlimited(connection):
        during = _limits()
    # then
    assert get_commands()["migrate"] == "gateway"
    assert (before[:2], during[:2]) == (("30s", "10s"), ("0", "10s"))
    assert before[2] is not None
    assert during[2] is None
    assert _limits() == before
