"""An index is added to the usage table while events go on being written."""

import threading

import psycopg
import pytest
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import connection, migrations, models
from django.db.migrations.state import ProjectState
from django.db.utils import OperationalError

from billing.models import UsageEvent
from tests.billing.open_books import Books

INDEX = models.Index(fields=["outcome"], name="usage_of_the_test")


def add_index(operation: type[migrations.AddIndex], problems: list[Exception]) -> None:
    """As `manage.py migrate` does for a migration that is no transaction, in its own thread."""
    before = ProjectState.from_apps(UsageEvent._meta.apps)
    after = before.clone()
    made = operation(model_name="usageevent", index=INDEX)
    made.state_forwards("billing", after)
    try:
        with connection.schema_editor(atomic=False) as editor:
            made.database_forwards("billing", editor, before, after)
    except Exception as problem:  # noqa: BLE001 - it is the test's answer
        problems.append(problem)
    finally:
        connection.close()


def write_while(operation: type[migrations.AddIndex], books: Books) -> None:
    """Another writer's transaction is open: whoever makes an index has to wait for it."""
    open_writer = psycopg.connect(**connection.get_connection_params(), autocommit=False)
    problems: list[Exception] = []
    with open_writer:
        open_writer.execute("LOCK TABLE billing_usageevent IN ROW EXCLUSIVE MODE")
        thread = threading.Thread(target=add_index, args=(operation, problems))
        thread.start()
        wait_until_someone_waits()
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '500ms'")
        try:
            books.served()
            books.drain()
        finally:
            with connection.cursor() as cursor:
                cursor.execute("RESET lock_timeout")
            open_writer.commit()
            thread.join()
    assert problems == []


def wait_until_someone_waits() -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with connection.cursor() as cursor:
        for _ in range(10_000):
            cursor.execute(waiting)
            if cursor.fetchone()[0]:
                return
    raise AssertionError("nobody waits")


@pytest.fixture(autouse=True)
def without_index(transactional_db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX IF EXISTS {INDEX.name}")


def test_events_are_written_while_an_index_is_made_concurrently(books: Books) -> None:
    # when
    write_while(AddIndexConcurrently, books)
    # then
    assert UsageEvent.objects.count() == 1
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT '{INDEX.name}'::regclass::oid > 0")
        assert cursor.fetchone() == (True,)
        cursor.execute(f"DROP INDEX {INDEX.name}")
    assert books.check() == {}


def test_the_same_index_made_plainly_keeps_writers_out(books: Books) -> None:
    # when
    with pytest.raises(OperationalError, match="lock timeout"):
        write_while(migrations.AddIndex, books)
    # then: nothing is lost, the next drain posts it
    books.drain()
    assert UsageEvent.objects.count() == 1
    with connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX {INDEX.name}")
    assert books.check() == {}


@pytest.mark.django_db
def test_an_event_is_written_to_no_more_indexes_than_are_paid_for() -> None:
    """What each costs is in billing/drain/steps.md; a partial one is for events that are rare."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
            " WHERE i.indrelid = 'billing_usageevent'::regclass AND i.indpred IS NULL"
        )
        full = {name for (name,) in cursor.fetchall()}

    assert {name for name in full if not name.startswith("billing_usageevent_transfer_id")} == {
        "billing_usageevent_pkey",
        "usage_by_supplier",
        "usage_drained",
        "usage_event_unique",
        "usage_key_requests",
        "usage_model_requests",
        "usage_requests",
        "usage_supplier_requests",
    }
    assert len(full) == 9
