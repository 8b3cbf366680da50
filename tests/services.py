"""A throw-away PostgreSQL and Redis for each pytest session, and the fixtures that hand them out.

They start before Django reads its settings, live in a temporary folder of their own, so that
sessions running side by side never meet, and end with the session even when it is killed.
"""

import dataclasses
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import django
import pytest
import redis

from gateway import env
from gateway.runtime import child, osuser, places
from gateway.runtime.child import Program
from gateway.runtime.places import Places
from gateway.runtime.postgres import Postgres
from gateway.runtime.redis import Redis

SERVICES: Final = pytest.StashKey["Services"]()


class Services:
    """The two servers of one test session."""

    def __init__(self) -> None:
        # /tmp, not pytest's tmp_path: a unix socket's path must stay short, and the servers' own
        # OS user must be able to enter.
        self.root = Path(tempfile.mkdtemp(prefix="tokenhouse-test-"))
        self.root.chmod(0o711)
        where = Places(root=self.root, sockets=self.root / "run")
        user = osuser.for_services()
        self.postgres = Postgres(places=where, user=user, throw_away=True)
        self.redis = Redis(places=where, user=user, throw_away=True)
        self._processes: list[tuple[subprocess.Popen[bytes], Program]] = []

    def start(self) -> None:
        _share_binaries(self.root)
        for service, ending in ((self.postgres, signal.SIGQUIT), (self.redis, signal.SIGKILL)):
            service.prepare()
            # Nobody needs a clean shutdown of data that are deleted next.
            program = dataclasses.replace(service.program(), stop_signal=ending)
            log_path = self.root / f"{type(service).__name__.lower()}.log"
            with log_path.open("ab") as log:
                process = child.spawn(program, log=log)
            self._processes.append((process, program))
            service.wait_until_ready(process, log_path)

    def stop(self) -> None:
        for process, program in reversed(self._processes):
            child.stop(process, program)
        shutil.rmtree(self.root, ignore_errors=True)


def _share_binaries(root: Path) -> None:
    """All sessions of a clone use one copy of the servers' binaries; only data are their own."""
    installed = places.of_clone().install
    installed.mkdir(parents=True, exist_ok=True)
    (root / "services").symlink_to(installed)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    services = Services()
    config.stash[SERVICES] = services
    try:
        services.start()
    except BaseException:
        services.stop()
        raise
    env.overrule(
        {
            "DJANGO_SETTINGS_MODULE": "gateway.settings",
            "DATABASE_URL": services.postgres.url,
            "REDIS_URL": services.redis.url,
            "TOKENHOUSE_DATA_DIR": str(services.root / "data"),
            "TOKENHOUSE_SECRET_KEY": "only-for-tests-" + "x" * 32,
            "TOKENHOUSE_CREDENTIAL_KEYS": "b25seS1mb3ItdGVzdHMtMDEyMzQ1Njc4OS1hYmNkZWY=",
            "TOKENHOUSE_ALLOWED_HOSTS": "127.0.0.1,localhost,testserver",
        }
    )
    django.setup()
    # Only now: the standing people are fixtures that import models.
    config.pluginmanager.import_plugin("tests.people")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    services = config.stash.get(SERVICES, None)
    if services is not None:
        services.stop()


@pytest.fixture(scope="session")
def services(request: pytest.FixtureRequest) -> Services:
    """The servers themselves, for tests that need their addresses, folders or process."""
    return request.config.stash[SERVICES]


@pytest.fixture
def redis_url(services: Services) -> str:
    return services.redis.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator["redis.Redis"]:
    """An empty Redis; emptied again before the next test that asks for it."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        yield client
