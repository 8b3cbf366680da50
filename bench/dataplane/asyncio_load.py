"""The load generator for machines without wrk: closed-loop connections in one asyncio process.

Prints one JSON line with the same figures as wrk's script. An answer counts once it is complete.
"""

import argparse
import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from functools import partial

from bench.dataplane.shapes import PATH, SHAPES, Shape


@dataclass
class Tally:
    errors: int = 0
    latencies_us: list[float] = field(default_factory=list)


class Caller(asyncio.Protocol):
    """One connection that asks again as soon as it has its answer."""

    def __init__(self, request: bytes, tally: Tally) -> None:
        self._request = request
        self._tally = tally
        self._received = bytearray()
        self._asked_at = 0.0
        self._expected: int | None = None  # bytes of the whole answer; None while unknown
        self._chunked = False
        self._transport: asyncio.Transport | None = None
        self.closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tally.errors += not self.closing

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._expected is None and not self._chunked and not self._read_head():
            return
        if self._chunked:
            complete = self._received.endswith(b"0\r\n\r\n")
        else:
            complete = self._expected is not None and len(self._received) >= self._expected
        if complete:
            self._finish()

    def _read_head(self) -> bool:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._received[:end]).lower()
        self._chunked = b"transfer-encoding: chunked" in head
        _, found, rest = head.partition(b"content-length:")
        self._expected = end + 4 + int(rest.split(b"\r\n")[0]) if found else None
        return True

    def _finish(self) -> None:
        if not self._received.startswith(b"HTTP/1.1 2"):
            self._tally.errors += 1
        self._tally.latencies_us.append((time.perf_counter() - self._asked_at) * 1e6)
        self._ask()

    def _ask(self) -> None:
        self._received.clear()
        self._expected, self._chunked = None, False
        self._asked_at = time.perf_counter()
        if self._transport is not None:
            self._transport.write(self._request)

    def close(self) -> None:
        self.closing = True
        if self._transport is not None:
            self._transport.close()


def _same(caller: Caller) -> Caller:
    return caller


async def measure(shape: Shape, *, port: int, api_key: str, seconds: float) -> dict[str, float]:
    body = shape.body.encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {api_key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    tally = Tally()
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    callers = [Caller(head.encode() + body, tally) for _ in range(shape.connections)]
    for caller in callers:
        await loop.create_connection(partial(_same, caller), "127.0.0.1", port)
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    for caller in callers:
        caller.close()
    ordered = sorted(tally.latencies_us) or [0.0]
    return {
        "requests": len(tally.latencies_us),
        "errors": tally.errors,
        "seconds": took,
        "p50_us": ordered[len(ordered) // 2],
        "p99_us": ordered[len(ordered) * 99 // 100],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=[shape.name for shape in SHAPES], required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--api-key", required=True)
    given = parser.parse_args()
    (shape,) = (shape for shape in SHAPES if shape.name == given.shape)
    counted = asyncio.run(
        measure(shape, port=given.port, api_key=given.api_key, seconds=given.seconds)
    )
    sys.stdout.write(json.dumps(counted) + "\n")


if __name__ == "__main__":
    main()
