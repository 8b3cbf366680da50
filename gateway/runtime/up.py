"""`make up`: from an installed environment to a running gateway, and back to nothing at Ctrl-C.

In order: lock, leftovers, Postgres and Redis, database, then data plane, console and Celery; beside
these the worker's installation, and the workers when it is done. SIGINT and SIGTERM are handled
here and nowhere else; both stop everything in the supervisor's order.
"""

import secrets
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final

from django.conf import settings

from gateway import env
from gateway.runtime import (
    data_folders,
    logs,
    osuser,
    readiness,
    running_children,
    saved_environment,
    services,
    summary,
)
from gateway.runtime.data_folders import Places
from gateway.runtime.display import Display
from gateway.runtime.embedded.postgres import Postgres, PostgresFailed
from gateway.runtime.embedded.redis import Redis, RedisFailed
from gateway.runtime.supervisor import Service, Stage, Supervisor

TICK_S: Final = 0.15
PROBE_EVERY_S: Final = 0.3
SETUP: Final = "worker-setup"
GATEWAY_TIMEOUT_S: Final = 120.0
WORKER_TIMEOUT_S: Final = 600.0  # The first start measures the machine before it serves.


class StartFailed(RuntimeError):
    """Something could not be started; the text is for the person at the terminal."""


class StopAsked(Exception):
    """A signal asked for the end; raised between two steps, never in the middle of one."""


class Up:
    """One run of `make up`."""

    def __init__(self, where: Places, display: Display) -> None:
        self._where = where
        self._display = display
        self._supervisor = Supervisor(where, clock=time.monotonic, report=display.note)
        self._stop_asked = False
        self._workers: list[Service] = []
        self._workers_ready = False

    def ask_to_stop(self, signal_number: int, frame: FrameType | None) -> None:
        """Signal handler; a second signal changes nothing, stopping has limits of its own."""
        self._stop_asked = True

    def run(self) -> None:
        try:
            self._begin_worker_setup()
            self._start_services()
            self._prepare_database()
            self._spawn_gateway()
            if self._workers_can_start():
                self._spawn_workers()
            self._wait_for_gateway()
            self._bring_up_workers()
            self._say_that_it_is_up()
            while True:
                self._pause()
        finally:
            self._supervisor.stop_all(progress=self._display.note)

    def _start_services(self) -> None:
        user = osuser.for_services()
        postgres = Postgres(places=self._where, user=user)
        redis = Redis(places=self._where, user=user, appendfsync=settings.REDIS_APPENDFSYNC)
        if settings.DATABASE_URL == postgres.url:
            self._start_service("Postgres", postgres, Stage.POSTGRES)
        if settings.REDIS_URL == redis.url:
            self._start_service("Redis", redis, Stage.REDIS)

    def _start_service(self, title: str, service: Postgres | Redis, stage: Stage) -> None:
        name = title.lower()
        self._display.begin(name, f"{title} (embedded)")
        service.prepare()
        process = self._supervisor.start(Service(name=name, stage=stage, program=service.program()))
        service.wait_until_ready(process, logs.path_of(self._where.logs, name))
        self._display.end(name)

    def _prepare_database(self) -> None:
        self._display.begin("prepare", "database: migrations, catalogue, demo tenant")
        self._supervisor.start(services.prepare())
        self._finish("prepare", "prepare")

    def _spawn_gateway(self) -> None:
        self._display.begin("gateway", "API, console and jobs")
        for service in (services.data_plane(), services.console(), *services.celery(self._where)):
            self._supervisor.start(service)

    def _wait_for_gateway(self) -> None:
        for name, url, path in (
            ("console", services.console_url(), "/login/"),
            ("dataplane", services.api_url(), "/health"),
        ):
            address = (*readiness.host_and_port(url), path)
            self._wait_for(name, address, timeout_s=GATEWAY_TIMEOUT_S)
        self._display.end("gateway", detail=f"console is open at {services.console_url()}")

    def _begin_worker_setup(self) -> None:
        """Runs beside everything else: it takes minutes the first time."""
        if settings.WORKERS_ENABLED:
            self._display.begin(SETUP, "in-house workers: packages, model, kernels")
            self._supervisor.start(services.worker_setup(self._where))

    def _workers_can_start(self) -> bool:
        """From the second start on they come up beside the gateway, not after it."""
        is_set_up = settings.WORKERS_ENABLED and self._supervisor.exit_code(SETUP) == 0
        return is_set_up and "worker_key" in summary.read_demo(self._where)

    def _bring_up_workers(self) -> None:
        """A worker that cannot be had is said so, and the gateway runs without it."""
        if not settings.WORKERS_ENABLED:
            return
        try:
            if not self._workers:
                self._say_what_is_there()
                self._finish(SETUP, SETUP)
                self._spawn_workers()
            self._wait_for_workers()
        except StartFailed as problem:
            self._display.note(f"The gateway runs without in-house workers. {problem}")

    def _spawn_workers(self) -> None:
        self._display.end(SETUP)
        worker_key = summary.read_demo(self._where).get("worker_key")
        if not worker_key:
            raise StartFailed("There is no worker key in this installation.")
        self._display.begin("workers", "in-house workers: measuring this machine, then serving")
        key_file, bearers = worker_secrets(self._where, worker_key)
        self._workers = services.workers(self._where, worker_key=key_file, bearers=bearers)
        for service in self._workers:
            self._supervisor.start(service)

    def _wait_for_workers(self) -> None:
        for position, service in enumerate(self._workers):
            address = ("127.0.0.1", settings.WORKER_PORT + position, "/health")
            self._wait_for(service.name, address, timeout_s=WORKER_TIMEOUT_S, step="workers")
        self._wait_until_sold(self._workers[0].name)
        self._workers_ready = True
        self._display.end("workers")

    def _say_what_is_there(self) -> None:
        """The first start takes minutes to get its workers; the console is open meanwhile."""
        self._display.note(summary.text(summary.read_demo(self._where), workers_ready=False))

    def _say_that_it_is_up(self) -> None:
        demo = summary.read_demo(self._where)
        self._display.note(summary.text(demo, workers_ready=self._workers_ready))
        self._display.note("Ctrl-C stops everything. Logs: " + str(self._where.logs))

    def _finish(self, name: str, step: str) -> None:
        """Waits for a `once` service while the other children are looked after."""
        while (code := self._supervisor.exit_code(name)) is None:
            self._display.detail(step, logs.last_line(self._where.logs, name))
            self._pause()
        if code != 0:
            self._display.end(step, failed=True)
            raise self._failure(name, f"ended with {code}")
        self._display.end(step)

    def _wait_for(
        self, name: str, address: tuple[str, int, str], *, timeout_s: float, step: str = ""
    ) -> None:
        deadline = time.monotonic() + timeout_s
        while not readiness.answers(*address):
            if time.monotonic() > deadline:
                raise self._failure(name, f"does not answer after {timeout_s:.0f} s")
            if step:
                self._display.detail(step, logs.last_line(self._where.logs, name))
            self._pause(PROBE_EVERY_S)

    def _wait_until_sold(self, name: str) -> None:
        """A worker that serves is not sold yet: it registers, and the data plane must know."""
        key = summary.demo_key(summary.read_demo(self._where))
        deadline = time.monotonic() + GATEWAY_TIMEOUT_S
        while key is not None and not readiness.sells(services.api_url(), services.MODEL, key=key):
            if time.monotonic() > deadline:
                raise self._failure(name, "serves, but the gateway does not offer its model")
            self._pause(PROBE_EVERY_S)

    def _failure(self, name: str, what: str) -> StartFailed:
        said = logs.tail(self._where.logs, name, bytes_max=3000)
        return StartFailed(f"{name} {what}. It said last:\n{said}")

    def _pause(self, seconds: float = TICK_S) -> None:
        if self._stop_asked:
            raise StopAsked
        self._supervisor.tick()
        self._display.draw()
        time.sleep(seconds)


def worker_secrets(where: Places, worker_key: str) -> tuple[Path, dict[str, Path]]:
    """The workers' key, and what each asks of its callers; kept, so a restart changes nothing."""
    key_file = where.secrets / "worker_key"
    saved_environment.write_private(key_file, worker_key)
    bearers = {name: where.secrets / f"bearer-{name}" for name in services.SPECULATION}
    for path in bearers.values():
        saved_environment.keep(path, secrets.token_urlsafe(32))
    return key_file, bearers


def choose_environment(where: Places) -> None:
    """The operator's variables win; the rest is the embedded services' and our own secrets."""
    user = osuser.for_services()
    chosen = {
        "DJANGO_SETTINGS_MODULE": "gateway.settings",
        "TOKENHOUSE_DATA_DIR": str(where.root),
        "DATABASE_URL": Postgres(places=where, user=user).url,
        "REDIS_URL": Redis(places=where, user=user).url,
        **saved_environment.secret_environment(where),
    }
    env.apply_defaults(chosen)
    kept = {name: env.inherited()[name] for name in chosen if name in env.inherited()}
    saved_environment.save_environment(where, kept)


def main() -> None:
    where = data_folders.of_clone()
    lock = running_children.Lock(where)
    try:
        lock.take()
        left = running_children.sweep(where)
        choose_environment(where)
        readiness.require_free(services.ports())
    except (
        running_children.AlreadyRunning,
        readiness.PortTaken,
        env.EnvironmentRefused,
        OSError,
    ) as problem:
        sys.exit(f"tokenhouse: {problem}")
    with Display(time.monotonic) as display:
        if left:
            display.note(f"Ended what an earlier run had left behind: {', '.join(left)}")
        up = Up(where, display)
        signal.signal(signal.SIGINT, up.ask_to_stop)
        signal.signal(signal.SIGTERM, up.ask_to_stop)
        signal.signal(signal.SIGHUP, up.ask_to_stop)
        try:
            up.run()
        except StopAsked:
            display.note("Stopped.")
        except (StartFailed, PostgresFailed, RedisFailed, OSError) as problem:
            display.note(f"tokenhouse: {problem}")
            sys.exit(1)


if __name__ == "__main__":
    main()
