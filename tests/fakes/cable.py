"""A cable between a client and a server's unix socket that a test can cut, mute and mend.

Cut: every connection ends and no new one is taken. Muted: what the client says arrives, what the
server answers does not.
"""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path

from tests.patience import PATIENCE_S


@dataclass
class Cable:
    listens_at: Path
    leads_to: Path
    muted: bool = False
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def start(self) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(PATIENCE_S)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(PATIENCE_S)

    def cut(self) -> None:
        self._do(self._cut())

    def mend(self) -> None:
        self.muted = False
        self._do(self._listen())

    def _do(self, work: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def _run(self, ready: threading.Event) -> None:
        asyncio.run(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        await self._listen()
        ready.set()
        await self._stopping.wait()
        await self._cut()

    async def _listen(self) -> None:
        if self._server is not None and self._server.is_serving():
            return  # It was never cut.
        self.listens_at.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._connection, str(self.listens_at))

    async def _cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(str(self.leads_to))
        self._writers |= {writer, back}
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(
                self._pump(reader, back, is_answer=False), self._pump(there, writer, is_answer=True)
            )
        self._writers -= {writer, back}

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                if not (is_answer and self.muted):
                    sink.write(data)
                    await sink.drain()
        sink.close()
