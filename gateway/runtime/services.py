"""The command lines of everything that `make up` runs, except Postgres and Redis."""

import dataclasses
import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from django.conf import settings

from gateway import env
from gateway.dataplane.inbound import descriptors
from gateway.runtime.child import Program
from gateway.runtime.data_folders import CLONE, Places
from gateway.runtime.supervisor import Service, Stage

MODEL: Final = "smollm2-135m-instruct"
SPECULATION: Final = {"plain": "off", "phrases": "phrases+ngram"}
WORKER_PYTHON: Final = CLONE / ".venv-worker" / "bin" / "python"
DATAPLANE_BUFFER_BYTES: Final = 65_536
CONNECTIONS_WAITING_MAX: Final = 4_096
HEADER_TIMEOUT_MS: Final = 10_000
CONSOLE_WAIT_MS: Final = "800"
# Secrets and addresses of the gateway are no business of the workers' processes.
GATEWAY_ONLY: Final = ("DATABASE_URL", "REDIS_URL", "TOKENHOUSE_", "DJANGO_")


def prepare() -> Service:
    """Migrations and seeds; Stage.CONSOLE because it needs the database until it ends."""
    program = _gateway("-m", "gateway.runtime.prepare", stop_timeout_s=10.0)
    return Service(name="prepare", stage=Stage.CONSOLE, program=program, once=True)


def data_plane() -> Service:
    program = _gateway(
        *_granian(settings.DATAPLANE_HOST, settings.DATAPLANE_PORT, interface="asgi"),
        f"--workers={settings.DATAPLANE_PROCESSES}",
        f"--workers-kill-timeout={settings.DATAPLANE_DRAIN_MS // 1000 + 5}",
        # As many as it has descriptors for: what comes beyond waits to be let in.
        f"--backpressure={connections_max()}",
        f"--backlog={CONNECTIONS_WAITING_MAX}",
        # What the server itself holds for a client that does not read; its default is 400 KB.
        f"--http1-buffer-size={DATAPLANE_BUFFER_BYTES}",
        "gateway.dataplane.app:app",
        stop_timeout_s=settings.DATAPLANE_DRAIN_MS / 1000 + 10,
    )
    # The tables' apps only: without the console's a process is some 40 MB smaller.
    own = {**program.environment, "DJANGO_SETTINGS_MODULE": "gateway.dataplane.settings"}
    program = dataclasses.replace(program, environment=own)
    return Service(name="dataplane", stage=Stage.DATA_PLANE, program=program)


def connections_max() -> int:
    """What the server may hold open: the process raises its own limit when it starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = descriptors.DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else hard
    wished = settings.DATAPLANE_CONNECTIONS_MAX
    return descriptors.room(min(limit, descriptors.DESCRIPTORS_MAX), wished=wished).connections_max


def console() -> Service:
    program = _gateway(
        # Django has no lifespan to start or end.
        *_granian(settings.CONSOLE_HOST, settings.CONSOLE_PORT, interface="asginl"),
        "--workers=1",
        "--workers-kill-timeout=5",
        "gateway.asgi:application",
        stop_timeout_s=15.0,
    )
    # A person looks on: without PostgreSQL the page says so within a second.
    own = {"TOKENHOUSE_DATABASE_WAIT_MS": CONSOLE_WAIT_MS, **program.environment}
    program = dataclasses.replace(program, environment=own)
    return Service(name="console", stage=Stage.CONSOLE, program=program)


def celery(where: Places) -> list[Service]:
    """`money` has a worker of its own, so that no slow probe ever delays it."""
    schedule = where.root / "celerybeat-schedule"
    beat = _gateway(*_celery(), "beat", f"--schedule={schedule}", "--pidfile=", stop_timeout_s=10.0)
    return [
        Service(name="celery-money", stage=Stage.CELERY, program=_celery_worker("money", 1)),
        Service(name="celery-boards", stage=Stage.CELERY, program=_celery_worker("boards,slow", 2)),
        Service(name="celery-beat", stage=Stage.CELERY, program=beat),
    ]


def worker_setup(where: Places) -> Service:
    """Packages, the model in the engine's own form, the kernels; all kept and made only once."""
    script = (
        'set -e; "$0" -m gateway.runtime.bootstrap worker; '
        'test -f "$2/conversion.json" || "$1" -m workers.convert --model-dir "$2"'
    )
    if settings.WORKER_QUANTISATION == "int8":
        # Without a compiler the workers say so and serve fp32.
        script += '; echo "compiling the int8 kernels"; '
        script += '"$1" -m workers.kernels.build --kernel-dir "$3" || true'
    paths = (WORKER_PYTHON, model_folder(where), kernel_folder(where))
    program = Program(
        command=("/bin/sh", "-c", script, sys.executable, *map(str, paths)),
        environment=_worker_environment(),
        folder=CLONE,
        stop_timeout_s=1.0,  # pip and the conversion write beside their place; nothing is half made
    )
    return Service(name="worker-setup", stage=Stage.WORKER, program=program, once=True)


def workers(where: Places, *, worker_key: Path, bearers: Mapping[str, Path]) -> list[Service]:
    """Two sellers of one model: plain, and with drafts of phrases and prompt lookup.

    Their secrets travel as files: a command line can be read by every user of the machine.
    """
    services = []
    threads = settings.WORKER_THREADS or max(1, (os.cpu_count() or 2) // len(SPECULATION))
    for position, (variant, speculation) in enumerate(SPECULATION.items()):
        options = {
            "--model-dir": str(model_folder(where)),
            "--host": "127.0.0.1",
            "--port": str(settings.WORKER_PORT + position),
            "--quantisation": settings.WORKER_QUANTISATION,
            "--kernel-dir": str(kernel_folder(where)),
            "--speculation": speculation,
            "--threads": str(threads),
            "--name": variant,
            "--gateway": console_url(),
            "--worker-key-file": str(worker_key),
            "--bearer-file": str(bearers[variant]),
        }
        if settings.WORKER_USD_PER_HOUR:
            options["--usd-per-hour"] = settings.WORKER_USD_PER_HOUR
        flags = [part for pair in options.items() for part in pair]
        program = _worker("-m", "workers.server", *flags)
        services.append(Service(name=f"worker-{variant}", stage=Stage.WORKER, program=program))
    return services


def ports() -> dict[str, tuple[str, int]]:
    """Variable -> address that must be free before anything starts."""
    needed = {
        "TOKENHOUSE_DATAPLANE_PORT": (settings.DATAPLANE_HOST, settings.DATAPLANE_PORT),
        "TOKENHOUSE_CONSOLE_PORT": (settings.CONSOLE_HOST, settings.CONSOLE_PORT),
    }
    if settings.WORKERS_ENABLED:
        needed["TOKENHOUSE_WORKER_PORT"] = ("127.0.0.1", settings.WORKER_PORT)
        needed["TOKENHOUSE_WORKER_PORT (and the next)"] = ("127.0.0.1", settings.WORKER_PORT + 1)
    return needed


def api_url() -> str:
    return f"http://{_reachable(settings.DATAPLANE_HOST)}:{settings.DATAPLANE_PORT}"


def console_url() -> str:
    return f"http://{_reachable(settings.CONSOLE_HOST)}:{settings.CONSOLE_PORT}"


def model_folder(where: Places) -> Path:
    return where.root / "models" / MODEL


def kernel_folder(where: Places) -> Path:
    return where.root / "kernels"


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::") else host


def _granian(host: str, port: int, *, interface: str) -> tuple[str, ...]:
    server = ("-m", "granian", f"--interface={interface}", "--http=1", "--no-ws", "--loop=uvloop")
    workers = ("--respawn-failed-workers", "--runtime-threads=1")
    waits = (f"--http1-header-read-timeout={HEADER_TIMEOUT_MS}",)
    return (*server, *workers, *waits, f"--host={host}", f"--port={port}")


def _celery() -> tuple[str, ...]:
    return ("-m", "celery", "--app=gateway.celery")


def _celery_worker(queues: str, concurrency: int) -> Program:
    options = [f"--queues={queues}", f"--concurrency={concurrency}", "--loglevel=WARNING"]
    name = f"--hostname={queues.split(',')[0]}@%h"
    # Nobody reads Celery's events here, and gossip between two workers decides nothing.
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    return _gateway(*_celery(), "worker", name, *options, *quiet, stop_timeout_s=30.0)


def _gateway(*arguments: str, stop_timeout_s: float) -> Program:
    return Program(
        command=(sys.executable, *arguments),
        environment={**env.inherited(), "PYTHONUNBUFFERED": "1"},
        folder=CLONE,
        stop_timeout_s=stop_timeout_s,
    )


def _worker(*arguments: str) -> Program:
    return Program(
        command=(str(WORKER_PYTHON), *arguments),
        environment=_worker_environment(),
        folder=CLONE,
        stop_timeout_s=15.0,
    )


def _worker_environment() -> dict[str, str]:
    own = {k: v for k, v in env.inherited().items() if not k.startswith(GATEWAY_ONLY)}
    return {**own, "PYTHONUNBUFFERED": "1"}
