"""A gateway of the bench's own: real PostgreSQL and Redis, seeded, with one data plane process.

Redis appends to its file once a second, as in production. Nothing drains the usage stream, so that
what was metered can be counted afterwards.
"""

import base64
import json
import secrets
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import redis

from bench.dataplane.bed import PROJECT, Bed, BenchFailed, child_environment, free_port
from billing import registers
from gateway.runtime import data_folders, osuser
from gateway.runtime.data_folders import Places
from gateway.runtime.embedded.postgres import Postgres
from gateway.runtime.embedded.redis import Redis

SEED_TIMEOUT_S: Final = 120.0
DJANGO_VIEW: Final = "bench.dataplane.django_view:application"


@dataclass(frozen=True, slots=True)
class Installation:
    """What the bench must know of the gateway it started."""

    pid: int
    port: int
    api_key: str
    redis_pid: int
    redis_url: str
    stream: str
    command: tuple[str, ...]
    environment: Mapping[str, str]

    def usage_events(self) -> int:
        with redis.Redis.from_url(self.redis_url) as client:
            return int(client.xlen(self.stream))


def start(bed: Bed, *, upstream_port: int) -> Installation:
    where = Places(root=bed.folder, sockets=bed.folder / "run")
    user = osuser.for_services()
    postgres = Postgres(places=where, user=user, throw_away=True)
    store = Redis(places=where, user=user)
    share_binaries(where)
    _start_service(bed, "postgres", postgres)
    redis_pid = _start_service(bed, "redis", store)
    port = free_port()
    environment = {
        **child_environment(),
        "DATABASE_URL": postgres.url,
        "REDIS_URL": store.url,
        "TOKENHOUSE_DATA_DIR": str(bed.folder / "data"),
        "TOKENHOUSE_SECRET_KEY": secrets.token_urlsafe(48),
        "TOKENHOUSE_CREDENTIAL_KEYS": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "TOKENHOUSE_DATAPLANE_PORT": str(port),
        "DJANGO_SETTINGS_MODULE": "gateway.dataplane.settings",
    }
    seeded = _seed(environment, upstream_port)
    environment["DJANGO_SETTINGS_MODULE"] = seeded["settings_module"]
    pid = bed.start(
        "dataplane", seeded["command"], core=bed.subject_core, environment=environment, port=port
    )
    tag = registers.shard_tag(seeded["tenant"])
    stream = registers.stream_key(tag)
    return Installation(
        pid=pid,
        port=port,
        api_key=seeded["api_key"],
        redis_pid=redis_pid,
        redis_url=store.url,
        stream=stream,
        command=tuple(seeded["command"]),
        environment=environment,
    )


def start_django_view(bed: Bed, like: Installation, *, upstream_port: int) -> tuple[int, int]:
    """The same server with a Django view in it; returns its pid and port."""
    port = free_port()
    replaced = {f"--port={like.port}": f"--port={port}", like.command[-1]: DJANGO_VIEW}
    environment = {
        **like.environment,
        "DJANGO_SETTINGS_MODULE": "bench.dataplane.django_settings",
        "TOKENHOUSE_BENCH_UPSTREAM": f"http://127.0.0.1:{upstream_port}",
    }
    command = [replaced.get(part, part) for part in like.command]
    pid = bed.start("django", command, core=bed.subject_core, environment=environment, port=port)
    return pid, port


def share_binaries(where: Places) -> None:
    """The clone's own copy of the servers' binaries serves the bench too."""
    installed = data_folders.of_clone().install
    installed.mkdir(parents=True, exist_ok=True)
    where.install.symlink_to(installed)


def _start_service(bed: Bed, name: str, service: Postgres | Redis) -> int:
    service.prepare()
    process = bed.run(name, service.program())
    bed.move_aside(process.pid)
    service.wait_until_ready(process, bed.log_path(name))
    return process.pid


def _seed(environment: dict[str, str], upstream_port: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.dataplane.seed", str(upstream_port)],
        env=environment,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=SEED_TIMEOUT_S,
    )
    if done.returncode != 0:
        raise BenchFailed(f"seeding failed\n{done.stderr[-3000:]}")
    seeded: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return seeded
