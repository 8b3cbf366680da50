"""One request in flight: what was asked, what was planned, what each attempt came to.

Data only. The pipeline fills it from top to bottom; settlement and leases read it.
"""

from dataclasses import dataclass, field
from typing import Any

from billing.holds import SpendScope
from gateway.dataplane.auth import Principal
from gateway.dataplane.client import Client
from gateway.dataplane.stopwatch import Stopwatch
from gateway.routing.router import Ranking
from providers.chat import Candidate, ChatRequest, Chunk, ResponseReader, ResponseWriter
from providers.errors import ProviderError

OK = "ok"
CLIENT_CANCELLED = "client_cancelled"
CLIENT_STALLED = "client_stalled"
UPSTREAM_ERROR = "upstream_error"
UPSTREAM_CUT = "upstream_cut"
REFUSED = "refused"
DEADLINE = "deadline"
STOPPED = "stopped"  # by us, at the caller's own ceiling
UNKNOWN = "unknown"


@dataclass(slots=True)
class Tally:
    """Content that passed by: what bounds or estimates tokens where a provider gives no count."""

    size: int = 0
    chunks: int = 0

    def add(self, chunk: Chunk) -> None:
        size = _bytes(chunk.text) + _bytes(chunk.reasoning)
        if chunk.tool_calls:
            size += sum(_bytes(str(call.get("function", ""))) for call in chunk.tool_calls)
        if size:
            self.size += size
            self.chunks += 1


def _bytes(text: str) -> int:
    """As UTF-8; a string knows without a look whether it is ASCII."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


@dataclass(slots=True)
class Attempt:
    """One try at one candidate. `shown` is what the client's transport took of what was `read`."""

    number: int
    candidate: Candidate
    reader: ResponseReader
    stopwatch: Stopwatch
    outcome: str = ""
    failure: ProviderError | None = None
    status: int = 0
    cancel_applied: str = ""
    read: Tally = field(default_factory=Tally)
    shown: Tally = field(default_factory=Tally)


@dataclass(frozen=True, slots=True)
class Hold:
    """What is set aside for the dearest candidate, and in which caps.

    `ceiling_nano` is the most that the tenant pays: in strict mode the hold itself. `named` are
    the caps among `spend` that hold for one model or provider only, as (position, kind, name).
    """

    nano: int
    ceiling_nano: int
    overdraft_nano: int
    input_tokens: int
    output_tokens: int
    spend: tuple[SpendScope, ...]
    named: tuple[tuple[int, str, str], ...] = ()

    @property
    def tokens(self) -> int:
        """What counts in limits of tokens per minute."""
        return self.input_tokens + self.output_tokens

    def not_in(self, candidate: Candidate) -> tuple[int, ...]:
        """Positions of the caps that this candidate's spending does not count in."""
        if not self.named:
            return ()
        offer = candidate.offer
        of_offer = {"model": offer.model, "provider": offer.provider}
        return tuple(at for at, kind, name in self.named if of_offer[kind] != name)


@dataclass(slots=True)
class Exchange:
    """See the module. `candidates` are those that may be tried; the hold covers the dearest.
    `session_nano` is what the caller's session has cost so far; None without one."""

    request_id: str
    started_ms: int
    deadline_ms: int
    principal: Principal
    request: ChatRequest
    client: Client
    writer: ResponseWriter
    ranking: Ranking
    candidates: tuple[Candidate, ...]
    hold: Hold
    session: str = ""
    session_nano: int | None = None
    attempts: list[Attempt] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)  # of an answer that is not streamed

    @property
    def last(self) -> Attempt:
        return self.attempts[-1]

    def notes(self) -> list[dict[str, Any]]:
        """What became of each try, for an error's detail."""
        return [
            {
                "offer": attempt.candidate.offer.sku,
                "outcome": attempt.outcome,
                "error": attempt.failure.code if attempt.failure else "",
                "message": attempt.failure.message if attempt.failure else "",
            }
            for attempt in self.attempts
        ]
