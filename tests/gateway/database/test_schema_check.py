"""Old code does not run on a newer schema, and says why."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from gateway.database import schema_check
from gateway.database.schema_check import SchemaNewer
from gateway.runtime.data_folders import CLONE
from tests.gateway.world import environment

LATER = "9999_of_a_later_release"
pytestmark = pytest.mark.usefixtures("transactional_db")


@pytest.fixture
def newer_schema() -> Iterator[None]:
    applied = MigrationRecorder.Migration.objects
    row = applied.create(app="billing", name=LATER, applied=datetime.now(UTC))
    yield
    row.delete()


def test_the_schema_of_this_release_is_taken() -> None:
    assert schema_check.check() is True


def test_other_apps_migrations_are_their_own_affair() -> None:
    row = MigrationRecorder.Migration.objects.create(
        app="unfold", name=LATER, applied=datetime.now(UTC)
    )
    assert schema_check.check() is True
    row.delete()


def test_a_newer_schema_is_refused_by_name(newer_schema: None) -> None:
    with pytest.raises(SchemaNewer, match=f"later release \\(billing.{LATER}\\): start that"):
        schema_check.check()


@pytest.mark.parametrize(
    "command",
    [
        ("granian", "--interface=asgi", "--no-ws", "--port=0", "gateway.dataplane.app:app"),
        ("celery", "--app=gateway.celery", "worker", "--queues=slow", "--pool=solo"),
    ],
    ids=["data plane", "celery"],
)
def test_no_process_of_an_older_release_begins(
    newer_schema: None, redis_url: str, tmp_path_factory: pytest.TempPathFactory, command: list[str]
) -> None:
    # given
    folder = tmp_path_factory.mktemp("older")
    variables = environment(folder, {"TOKENHOUSE_DATA_DIR": str(folder), "REDIS_URL": redis_url})
    host = connection.settings_dict["HOST"]
    name, user = connection.settings_dict["NAME"], connection.settings_dict["USER"]
    variables["DATABASE_URL"] = f"postgresql://{user}@/{name}?host={host}"
    # when
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=CLONE,
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # then
    assert done.returncode != 0
    assert f"migrated by a later release (billing.{LATER})" in done.stdout + done.stderr
