"""The data plane's ASGI application: a plain callable, path → surface → pipeline.

    granian --interface asgi gateway.dataplane.app:app

Django is set up for its settings and its tables, and plays no part in a request.
"""

import asyncio
import gc
import logging
import signal

import django

from gateway import env

env.overrule({"DJANGO_SETTINGS_MODULE": "gateway.dataplane.settings"})
django.setup()

# Only now: what follows reads settings and tables.
from django.conf import settings  # noqa: E402

from gateway.clocks.stopwatch import SystemClock  # noqa: E402
from gateway.dataplane import info_endpoints, quoting  # noqa: E402
from gateway.dataplane.inbound import cors  # noqa: E402
from gateway.dataplane.inbound.client import Client, Receive, Scope, Send  # noqa: E402
from gateway.dataplane.inbound.request_id import new_request_id  # noqa: E402
from gateway.dataplane.inbound.watchdog import Interrupted, Watchdog  # noqa: E402
from gateway.dataplane.limits import Limits  # noqa: E402
from gateway.dataplane.plane import Plane  # noqa: E402
from gateway.dataplane.snapshots.loader import DatabaseSource  # noqa: E402
from gateway.dataplane.surfaces.registry import (  # noqa: E402
    SURFACES,
    Surface,
    spoken_by,
)
from gateway.errors import (  # noqa: E402
    GatewayError,
    MethodNotAllowed,
    Unavailable,
    UpgradeRequired,
)

logger = logging.getLogger(__name__)

# A request leaves hardly any cycles; by default the collector would run for every third one.
GC_THRESHOLDS = (20_000, 20, 50)
# For an error to be said after the deadline, or while the process stops.
LAST_WORDS_S = 5.0


class Application:
    """Serves requests once its lifespan has begun."""

    def __init__(self) -> None:
        self._plane: Plane | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self._start()
                except Exception as problem:
                    logger.exception("the data plane could not start")
                    await send({"type": "lifespan.startup.failed", "message": str(problem)})
                    return
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                if self._plane:
                    await self._plane.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _start(self) -> None:
        """Redis or Postgres being away is no reason not to start; a wrong setting is."""
        source = DatabaseSource()
        await asyncio.to_thread(source.check_schema)
        plane = Plane(
            redis_url=settings.REDIS_URL,
            limits=Limits.from_settings(settings),
            source=source,
            clock=SystemClock(),
        )
        await plane.start()
        self._plane = plane
        # What was loaded at start stays for good: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            # Beside the server's own handling, which waits for open requests without a limit.
            # The loop hears of signals by its wake-up descriptor, so this handler takes
            # nothing from it.
            signal.signal(signum, lambda *_: loop.call_soon_threadsafe(plane.begin_stop))

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        plane = self._plane
        assert plane is not None, "the server runs no lifespan"
        task = asyncio.current_task()
        assert task is not None
        watchdog = Watchdog(deadline_s=plane.limits.deadline_s, pulse=plane.pulse)
        plane.serving(task, watchdog)
        plane.door.enter(scope.get("client"))
        client = Client(
            scope, receive, send, limits=plane.limits, watchdog=watchdog, budget=plane.budget
        )
        request_id = new_request_id(plane.clock.now_ms())
        # Base addresses end with a slash as often as not, and so then do the paths made of them.
        path = scope["path"].rstrip("/") or "/"
        surface = SURFACES.get(path) or spoken_by(client.headers, path)
        client.labels += [
            (b"x-request-id", request_id.encode()),
            (b"request-id", request_id.encode()),
            *cors.head_of(client.headers, plane.limits.cors_origins),
        ]
        try:
            _check_protocol(client)
            if cors.is_preflight(scope["method"], client.headers):
                await client.answer(204, cors.preflight_head(client.headers), b"")
            elif path not in SURFACES and path != quoting.PATH:
                await info_endpoints.serve(plane, client, scope["method"], path)
            else:
                await self._post(plane, surface, client, scope["method"], path, request_id)
        except Interrupted:
            logger.debug("the client of %s left before there was an answer", request_id)
        except GatewayError as error:
            await _refuse(surface, client, error, request_id)
        except Exception:
            logger.exception("request %s failed", request_id)
            failed = GatewayError("Something went wrong on our side; the request id says where.")
            await _refuse(surface, client, failed, request_id)
        finally:
            watchdog.close()
            client.release()
            plane.served(task)
            plane.door.leave(scope.get("client"))

    async def _post(
        self,
        plane: Plane,
        surface: Surface,
        client: Client,
        method: str,
        path: str,
        request_id: str,
    ) -> None:
        if method != "POST":
            raise MethodNotAllowed("Use POST here.")
        if plane.stopping:
            raise Unavailable("This process is stopping. Try again.")
        plane.door.check()
        if path == quoting.PATH:
            await quoting.serve(plane.pipeline, surface, client, request_id=request_id)
        else:
            await plane.pipeline.serve(surface, client, request_id=request_id)


def _check_protocol(client: Client) -> None:
    """Clients that would rather speak WebSocket go on in HTTP at once when told so, and only then:
    each other refusal they try again."""
    if client.headers.get(b"upgrade", b"").lower() == b"websocket":
        raise UpgradeRequired("WebSocket is not spoken here. Send the request by POST.")


async def _refuse(surface: Surface, client: Client, error: GatewayError, request_id: str) -> None:
    """Tell the caller in its own dialect; silently nothing where it is gone or was answered."""
    if client.started or client.watchdog.client_left:
        return
    head = [(b"content-type", b"application/json"), *client.head, *error.headers]
    if error.retry_after_s is not None:
        head.append((b"retry-after", str(error.retry_after_s).encode()))
    if not error.retryable:
        # Without it Claude Code repeats a wrong key eleven times, for three minutes.
        head.append((b"x-should-retry", b"false"))
    client.watchdog.grant(LAST_WORDS_S)
    try:
        await client.pass_over_rest()
        await client.answer(error.status, head, surface.render_error(error, request_id))
    except Interrupted:
        client.cut()


app = Application()
