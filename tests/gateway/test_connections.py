"""Connections to Postgres that died in the pool are noticed before anybody uses them."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

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
