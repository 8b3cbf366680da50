"""The engine on a thread of its own, and the bounded way between it and the event loop.

Commands go in through a queue, progress comes out in one call per step. The number of requests in
flight is limited here, so neither side can pile up work. Without work the thread sleeps.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from workers.engine.engine import Engine
from workers.engine.metrics import Load
from workers.engine.progress import Progress
from workers.engine.sequence import FinishReason, GenerationRequest

# Two commands per request (submit, cancel) and some room; `submit` refuses long before.
COMMANDS_PER_REQUEST = 4

Command = Callable[[], None]

logger = logging.getLogger(__name__)


class Busy(RuntimeError):
    """As many requests as allowed are in flight."""


class Stopped(RuntimeError):
    """The engine's thread has ended."""


@dataclass(slots=True)
class Stream:
    """Progress of the choices of one call, merged per choice while nobody reads it."""

    request_ids: list[str]
    pending: dict[str, Progress] = field(default_factory=dict)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    unfinished: set[str] = field(default_factory=set)
    is_disconnected: bool = False

    def __post_init__(self) -> None:
        self.unfinished = set(self.request_ids)

    def put(self, progress: Progress) -> None:
        waiting = self.pending.get(progress.request_id)
        self.pending[progress.request_id] = (
            progress if waiting is None else waiting.followed_by(progress)
        )
        if progress.finish_reason is not None:
            self.unfinished.discard(progress.request_id)
        self.ready.set()

    def disconnect(self) -> None:
        self.is_disconnected = True
        self.ready.set()

    async def take(self) -> list[Progress]:
        """Everything since the last call; empty once all choices have ended or the client left."""
        while not self.pending and self.unfinished and not self.is_disconnected:
            self.ready.clear()
            await self.ready.wait()
        taken, self.pending = list(self.pending.values()), {}
        return [] if self.is_disconnected else taken


class EngineBridge:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        config = engine.config
        self._limit = config.max_requests
        self._commands: queue.Queue[Command] = queue.Queue(COMMANDS_PER_REQUEST * self._limit)
        self._streams: dict[str, Stream] = {}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._stopping = False
        self._ended = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive() and not self._ended

    @property
    def in_flight(self) -> int:
        return len(self._streams)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        self._stopping = True
        self._commands.put_nowait(lambda: None)
        self._thread.join(timeout_s)

    def submit(self, requests: list[GenerationRequest]) -> Stream:
        """Queue the choices of one call. Raises `Busy` or `Stopped`, and then nothing is queued."""
        if not self.is_alive:
            raise Stopped
        if self.in_flight + len(requests) > self._limit:
            raise Busy
        stream = Stream([request.request_id for request in requests])
        for request in requests:
            self._streams[request.request_id] = stream
        self._commands.put_nowait(lambda: self._add(requests))
        return stream

    def close(self, stream: Stream) -> None:
        """Cancel what is unfinished; call it at the end of every call, whatever happened."""
        unfinished = [r for r in stream.request_ids if self._streams.pop(r, None) is not None]
        if unfinished and self.is_alive:
            self._commands.put_nowait(lambda: self._cancel(unfinished))

    async def load_now(self) -> Load:
        """Running, waiting and cache use, read on the engine's thread between two steps."""
        future: asyncio.Future[Load] = asyncio.get_running_loop().create_future()
        self._commands.put_nowait(lambda: self._answer(future))
        return await future

    # What follows runs on the engine's thread.

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._execute_commands(block=not self.engine.has_work)
                if not self._stopping:
                    self._step()
        finally:
            self._ended = True
            self._post(self._end_streams)

    def _step(self) -> None:
        try:
            progress = self.engine.step()
        except Exception:
            logger.exception("a step failed; every request of the engine is ended")
            progress = self.engine.abort_all()
        if progress:
            self._post(partial(self._deliver, progress))

    def _execute_commands(self, *, block: bool) -> None:
        try:
            self._commands.get(block=block)()
            while True:
                self._commands.get_nowait()()
        except queue.Empty:
            return

    def _add(self, requests: list[GenerationRequest]) -> None:
        for request in requests:
            self.engine.add(request)

    def _cancel(self, request_ids: list[str]) -> None:
        for request_id in request_ids:
            self.engine.cancel(request_id)

    def _answer(self, future: "asyncio.Future[Load]") -> None:
        load = self.engine.load_now
        self.engine.publish_gauges()
        self._post(partial(_resolve, future, load))

    def _post(self, call: Callable[[], object]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            # The loop is closed: the server is going down and nobody waits for this any more.
            self._stopping = True

    # What follows runs on the event loop again.

    def _deliver(self, progress: list[Progress]) -> None:
        for item in progress:
            stream = self._streams.get(item.request_id)
            if stream is None:
                continue
            stream.put(item)
            if item.finish_reason is not None:
                del self._streams[item.request_id]

    def _end_streams(self) -> None:
        """The engine is gone: nobody may wait for it."""
        self._deliver(
            [
                Progress(request_id, "", finish_reason=FinishReason.ERROR)
                for request_id in list(self._streams)
            ]
        )


def _resolve(future: "asyncio.Future[Load]", load: Load) -> None:
    if not future.cancelled():
        future.set_result(load)
