"""One request of each shape, read whole, before anything is timed: a fast error is no result."""

import http.client
import json

from bench.dataplane.bed import BenchFailed
from bench.dataplane.shapes import EVENTS_PER_STREAM, PATH, TOKENS_PER_STREAM, Shape

TIMEOUT_S = 20


def check(shape: Shape, *, port: int, api_key: str, is_metered: bool) -> None:
    """Raises unless the answer is complete and, from a gateway, says what it cost."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {api_key}"}
    connection.request("POST", PATH, body=shape.body, headers=headers)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    if response.status != 200:
        raise BenchFailed(f"{shape.name}: {response.status} {body[:1000]}")
    last = _last_event(body) if shape.streamed else body
    usage = json.loads(last)["usage"]
    if usage["completion_tokens"] != TOKENS_PER_STREAM:
        raise BenchFailed(f"{shape.name}: wrong usage {usage}")
    if is_metered and not usage.get("cost"):
        raise BenchFailed(f"{shape.name}: no cost in {usage}")


def _last_event(body: str) -> str:
    events = [line[6:] for line in body.splitlines() if line.startswith("data: ")]
    if len(events) != EVENTS_PER_STREAM or events[-1] != "[DONE]":
        raise BenchFailed(f"a stream of {len(events)} events, the last one {events[-1:]}")
    return events[-2]
