"""Real servers on loopback: a worker over a tiny model, and a console that records what it gets."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import uvicorn

from tests.workers.engines import make_engine
from workers.engine.progress import Progress
from workers.server.app import App, ServerConfig
from workers.server.bridge import EngineBridge
from workers.server.call_builder import CallBuilder, SamplingDefaults

MODEL = "tiny"
BEARER = "open-sesame"


class RunningWorker:
    """A worker server on a thread of its own, with a client that carries the right secret."""

    def __init__(self, engine, **settings: object) -> None:
        self.engine = engine
        self.bridge = EngineBridge(engine)
        config = ServerConfig(**{"model_name": MODEL, "bearer": BEARER, **settings})
        app = App(self.bridge, CallBuilder.of(engine, SamplingDefaults()), config)
        self._server = uvicorn.Server(
            uvicorn.Config(app, port=0, lifespan="off", log_level="error", access_log=False)
        )
        self._server.config.load()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        self.bridge.start()
        self._server.lifespan = self._server.config.lifespan_class(self._server.config)
        await self._server.startup()
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self._listening.set()
        await self._server.main_loop()
        await self._server.shutdown()
        await asyncio.to_thread(self.bridge.stop, 5)

    def __enter__(self) -> "RunningWorker":
        self._thread.start()
        assert self._listening.wait(20)
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {BEARER}"},
            timeout=30,
            trust_env=False,
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self.client.close()
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()

    def chat(self, **fields: object) -> httpx.Response:
        return self.client.post("/v1/chat/completions", json=chat_body(**fields))

    def until_idle(self) -> None:
        """Wait for the engine to have dropped everything."""
        until(lambda: not self.engine.has_work and self.bridge.in_flight == 0)

    @contextlib.contextmanager
    def held_after_first_token(self) -> Iterator[None]:
        """The engine stands still once it has given a token, until the block ends."""
        step, opened, given = self.engine.step, threading.Event(), threading.Event()

        def held_step() -> list[Progress]:
            if given.is_set():
                assert opened.wait(20)
            progress = step()
            if progress:
                given.set()
            return progress

        self.engine.step = held_step
        try:
            yield
        finally:
            self.engine.step = step
            opened.set()


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread to make it true, at most ten seconds."""
    pause = threading.Event()
    for _ in range(1000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen in time")


def running_worker(model_dir: Path, *, server: dict | None = None, **limits: object):
    return RunningWorker(make_engine(model_dir, **limits), **(server or {}))


def chat_body(**fields: object) -> dict[str, object]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
    return {**body, "temperature": 0, "ignore_eos": True, **fields}


def sse(response: httpx.Response) -> list[dict | str]:
    """The events of a stream, parsed; the end marker as a string."""
    events = []
    for line in response.iter_lines():
        if line.startswith("data: "):
            payload = line.removeprefix("data: ")
            events.append(payload if payload == "[DONE]" else json.loads(payload))
    return events


GOOD_REPLY = b'{"worker_id": 7, "heartbeat_seconds": 5}'


class Console:
    """Answers registration and heartbeats as told and remembers every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, dict]] = []
        self.arrived = threading.Condition()
        self.answers: dict[str, list[int]] = {}
        self.replies: list[bytes] = []

    def status(self, path: str) -> int:
        queued = self.answers.get(path)
        return queued.pop(0) if queued else 200

    def wait_for(self, path: str, count: int) -> list[dict]:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.bodies(path)) >= count, timeout=20)
            return self.bodies(path)

    def bodies(self, path: str) -> list[dict]:
        return [body for called, _, body in self.calls if called == path]


@contextlib.contextmanager
def running_console(console: Console) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers["content-length"])
            body = json.loads(self.rfile.read(size))
            status = console.status(self.path)
            reply = console.replies.pop(0) if console.replies else GOOD_REPLY
            with contextlib.suppress(ConnectionError):  # a worker that is stopped does not wait
                self.send_response(status)
                self.send_header("content-length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)
            with console.arrived:
                console.calls.append((self.path, self.headers["authorization"], body))
                console.arrived.notify_all()

        def log_message(self, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
