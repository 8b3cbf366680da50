"""A throw-away PostgreSQL and Redis for each pytest session, and the fixtures that hand them out.

They start before Django reads its settings, live in a temporary folder of their own, so that
sessions running side by side never meet, and end with the session even when it is killed.
"""

import atexit
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import django
import pytest
import redis
from django.conf import settings

from gateway import env
from gateway.runtime import child, data_folders, osuser
from gateway.runtime.child import Program
from gateway.runtime.embedded.postgres import Postgres
from gateway.runtime.embedded.redis import Redis


class Services:
    """The two servers of one test session. Durable ones write as in production, for a bench; what
    is kept in a folder is there for the next."""

    def __init__(self, *, durable: bool = False, kept: Path | None = None) -> None:
        self._throw_away = not durable
        self._kept = kept
        self._processes: list[tuple[subprocess.Popen[bytes], Program]] = []
        self._owner = os.getpid()

    def start(self) -> None:
        self.root = self._folder()
        self.root.chmod(0o711)
        where = data_folders.in_folder(self.root)
        user = osuser.for_services()
        self.postgres = Postgres(places=where, user=user, throw_away=self._throw_away)
        self.redis = Redis(places=where, user=user, throw_away=self._throw_away)
        share_binaries(self.root)
        for service, ending in ((self.postgres, signal.SIGQUIT), (self.redis, signal.SIGKILL)):
            service.prepare()
            program = service.program()
            if self._kept is None:
                # Nobody needs a clean shutdown of data that are deleted next.
                program = dataclasses.replace(program, stop_signal=ending)
            log_path = self.root / f"{type(service).__name__.lower()}.log"
            with log_path.open("ab") as log:
                process = child.spawn(program, log=log)
            self._processes.append((process, program))
            service.wait_until_ready(process, log_path)

    def stop(self) -> None:
        if os.getpid() != self._owner:
            return  # A test has forked; the servers are its parent's.
        for process, program in reversed(self._processes):
            child.stop(process, program)
        if self._kept is None:
            shutil.rmtree(self.root, ignore_errors=True)

    def _folder(self) -> Path:
        if self._kept is not None:
            self._kept.mkdir(parents=True, exist_ok=True)
            return self._kept.resolve()
        # /tmp, not pytest's tmp_path: a unix socket's path must stay short, and the servers' own
        # OS user must be able to enter.
        return Path(tempfile.mkdtemp(prefix="tokenhouse-test-"))


SESSION: Final = Services()


def share_binaries(root: Path) -> None:
    """All sessions of a clone use one copy of the servers' binaries; only data are their own."""
    installed = data_folders.of_clone().install
    osuser.make_enterable(installed)
    link = root / "services"
    if not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(installed)


def pytest_plugin_registered(plugin: object, manager: pytest.PytestPluginManager) -> None:
    """Starts everything when this file becomes a plugin: conftest files below import models."""
    if plugin is sys.modules[__name__]:
        SESSION.start()
        atexit.register(SESSION.stop)
        point_django_at(SESSION)
        manager.import_plugin("tests.people")


def point_django_at(services: Services) -> None:
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
    # The real hasher takes a third of a second per person, which no test is about.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    django.setup()


@pytest.fixture(scope="session")
def services() -> Services:
    """The servers themselves, for tests that need their addresses, folders or process."""
    return SESSION


@pytest.fixture
def redis_url(services: Services) -> str:
    return services.redis.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator["redis.Redis"]:
    """An empty Redis; emptied again before the next test that asks for it."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        yield client
