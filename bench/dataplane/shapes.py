"""The loads that are measured, the request they send, and what one run of a load counted."""

import json
from dataclasses import dataclass
from typing import Final

MODEL: Final = "bench-model"
TOKENS_PER_STREAM: Final = 50
# The tokens, then a finish, the usage block and [DONE].
EVENTS_PER_STREAM: Final = TOKENS_PER_STREAM + 3
TOKEN_INTERVAL_US: Final = 5_000
PATH: Final = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Shape:
    """One load: how many connections send the request again and again, streamed or not."""

    name: str
    connections: int
    streamed: bool
    title: str

    @property
    def body(self) -> str:
        request: dict[str, object] = {
            "model": MODEL,
            "messages": [
                {"role": "system", "content": "You answer in one short sentence."},
                {"role": "user", "content": "What does the harbour look like at dawn in winter?"},
            ],
            "max_tokens": 64,
            "temperature": 0.2,
        }
        if self.streamed:
            request |= {"stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(request, separators=(",", ":"))


SHAPES: Final = (
    Shape("whole-32", 32, False, "not streamed, 32 connections"),
    Shape("stream-16", 16, True, "16 streams at once"),
    Shape("stream-256", 256, True, "256 streams at once"),
)


@dataclass(frozen=True, slots=True)
class Count:
    """What a load generator saw. `errors` are answers other than 2xx and broken connections."""

    requests: int
    errors: int
    seconds: float
    p50_us: float
    p99_us: float
