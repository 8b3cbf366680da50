"""The embedded Postgres and Redis: real, private, and gone with the session."""

import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.db import connection

from gateway.runtime import child, osuser
from gateway.runtime.data_folders import Places, in_folder
from gateway.runtime.embedded.postgres import Postgres
from gateway.runtime.embedded.redis import Redis
from tests.patience import PATIENCE_S, eventually
from tests.services import Services, share_binaries

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to act as another OS user")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def psql_as(uid: int, services: Services, role: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [services.postgres.binaries / "psql", "-h", services.postgres.places.sockets]
        + ["-U", role, "-d", "postgres", "-tAc", "SELECT current_user"],
        user=uid,
        group=uid,
        extra_groups=[],
        cwd="/",
        env={},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.django_db
def test_django_talks_to_postgres_18() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version_num")
        (version,) = cursor.fetchone()
    assert 180000 <= int(version) < 190000


@pytest.mark.django_db
def test_the_gateways_role_is_no_superuser() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        assert cursor.fetchone() == (False,)


def test_redis_answers_and_starts_empty(redis_client: "redis.Redis") -> None:
    assert redis_client.dbsize() == 0
    redis_client.set("left", "over")


def test_redis_is_emptied_between_tests(redis_client: "redis.Redis") -> None:
    assert redis_client.get("left") is None


def test_redis_listens_on_no_port_and_never_evicts(redis_client: "redis.Redis") -> None:
    assert redis_client.config_get("port") == {"port": "0"}
    assert redis_client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_redis_outside_of_tests_writes_its_append_only_file(services: Services) -> None:
    # given
    lasting = Redis(places=services.redis.places, user=services.redis.user)

    # when
    command = lasting.program().command

    # then
    assert command[command.index("--appendonly") + 1] == "yes"
    assert command[command.index("--appendfsync") + 1] == "everysec"


def test_redis_rewrites_its_append_only_file_in_time(services: Services) -> None:
    """What was written over and over is not read at every start."""
    root = Path(tempfile.mkdtemp(prefix="tokenhouse-test-", dir=services.root))
    root.chmod(0o711)
    share_binaries(root)
    lasting = Redis(
        places=Places(root=root, sockets=root / "run"), user=services.redis.user, appendfsync="no"
    )
    lasting.prepare()
    log_path = root / "redis.log"
    with log_path.open("ab") as log:
        process = child.spawn(lasting.program(), log=log)
    try:
        # given
        lasting.wait_until_ready(process, log_path)
        with redis.Redis(unix_socket_path=str(lasting.socket)) as client:
            # when: no faster than it can be rewritten, which it looks at ten times a second
            for _ in range(80):
                client.set("one", os.urandom(1024 * 1024))
                time.sleep(0.02)
                eventually(lambda: not _is_rewriting(client))
            eventually(lambda: not _is_rewriting(client))
            # then
            assert _file_bytes(client) < 45_000_000
    finally:
        child.stop(process, lasting.program())


def _is_rewriting(client: "redis.Redis") -> bool:
    told: dict[str, int] = client.info("persistence")  # type: ignore[assignment]
    return bool(told["aof_rewrite_in_progress"] or told["aof_rewrite_scheduled"])


def _file_bytes(client: "redis.Redis") -> int:
    told: dict[str, int] = client.info("persistence")  # type: ignore[assignment]
    return told["aof_current_size"]


def test_data_and_sockets_are_closed_to_others(services: Services) -> None:
    where = services.postgres.places
    assert [mode(p) for p in (where.postgres_data, where.redis_data, where.sockets)] == [0o700] * 3


@as_root
def test_another_os_user_cannot_reach_the_socket(services: Services) -> None:
    done = psql_as(65534, services, "tokenhouse")
    assert done.returncode != 0
    assert "Permission denied" in done.stderr


@as_root
@pytest.mark.parametrize("role", ["tokenhouse", "postgres"])
def test_another_os_user_is_refused_by_postgres_itself(services: Services, role: str) -> None:
    # given a socket folder that somebody has opened
    sockets = services.postgres.places.sockets
    sockets.chmod(0o755)
    try:
        # when
        done = psql_as(65534, services, role)
    finally:
        sockets.chmod(0o700)

    # then
    assert done.returncode != 0
    assert f'Peer authentication failed for user "{role}"' in done.stderr


@pytest.fixture
def private_parent() -> Iterator[Path]:
    """A 0700 folder of the service user's, as a home folder is."""
    user = osuser.for_services()
    parent = Path(tempfile.mkdtemp(prefix="tokenhouse-home-"))
    os.chown(parent, user.uid, user.gid)
    parent.chmod(0o700)
    yield parent
    shutil.rmtree(parent)


def test_a_private_parent_folder_stays_private(private_parent: Path) -> None:
    # given
    where = in_folder(private_parent / "data")
    where.root.mkdir(mode=0o755)
    share_binaries(where.root)
    postgres = Postgres(places=where, user=osuser.for_services(), throw_away=True)
    above = [private_parent, *private_parent.parents]
    modes_before = [mode(path) for path in above]

    # when
    postgres.prepare()
    program = postgres.program()
    with (where.root / "postgres.log").open("ab") as log:
        process = child.spawn(program, log=log)
    try:
        postgres.wait_until_ready(process, where.root / "postgres.log")
    finally:
        left_by_itself = child.stop(process, program)

    # then
    assert [mode(path) for path in above] == modes_before
    assert left_by_itself


@as_root
def test_a_folder_that_the_service_user_cannot_enter_is_refused(tmp_path: Path) -> None:
    # given
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    where = Places(root=closed / "data", sockets=closed / "data" / "run")
    where.root.mkdir()

    # when / then
    with pytest.raises(PermissionError, match="TOKENHOUSE_DATA_DIR"):
        Postgres(places=where, user=osuser.for_services(), throw_away=True).prepare()
    assert mode(closed) == 0o700


def test_a_deep_clone_gets_a_short_socket_path() -> None:
    where = in_folder(Path("/somewhere") / ("deep" * 30))
    assert len(str(where.sockets / ".s.PGSQL.5432")) < 108
    assert str(where.sockets).startswith(tempfile.gettempdir())
