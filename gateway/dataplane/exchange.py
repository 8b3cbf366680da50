"""One request in flight: what was asked, what was planned, what each attempt came to.

Data only. The pipeline fills it from top to bottom; charges and leases read it.
"""

import time
from dataclasses import dataclass, field
from typing import Final

from billing import outcomes
from billing.holding.holds import SpendScope
from billing.outcomes import STOPPED
from billing.samples import Sample
from billing.usage import CanonicalUsage
from gateway.clocks.stopwatch import Stopwatch
from gateway.dataplane.auth import Principal
from gateway.dataplane.inbound.client import Client
from gateway.dataplane.surfaces.registry import Surface
from gateway.estimates import text_features
from gateway.estimates.ratios import Ratios
from gateway.estimates.text_features import Shape
from gateway.routing.explained import TriedRow
from gateway.routing.router import Ranking
from providers.chat import Candidate, ChatRequest, Chunk, ResponseReader, ResponseWriter
from providers.errors import ProviderError

# So much of an answer's text is kept to tell what it is made of; the rest is like it.
TEXT_KEPT_BYTES: Final = 16 * 1024


@dataclass(slots=True)
class Tally:
    """Content that passed by: what estimates tokens where a provider gives no count."""

    size: int = 0
    chunks: int = 0
    texts: list[str] = field(default_factory=list)

    def add(self, chunk: Chunk) -> None:
        before = self.size
        if chunk.text:
            self._take(chunk.text)
        if chunk.reasoning:
            self._take(chunk.reasoning)
        if chunk.tool_calls:
            for text in text_features.tool_texts(chunk.tool_calls):
                self._take(text)
        if self.size != before:
            self.chunks += 1

    def _take(self, text: str) -> None:
        if self.size < TEXT_KEPT_BYTES:
            self.texts.append(text)
        self.size += _bytes(text)


def _bytes(text: str) -> int:
    """As UTF-8; a string knows without a look whether it is ASCII."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


@dataclass(frozen=True, slots=True)
class Told:
    """What a server had counted when so many bytes of its answer were shown."""

    usage: CanonicalUsage
    size: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A count that was asked for once the answer was over, and who made it."""

    usage: CanonicalUsage
    basis: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the text of a prompt is made of, its bytes, and what stands beside it, in tokens."""

    shape: Shape
    size: int
    beside_tokens: int


@dataclass(slots=True)
class Attempt:
    """One try at one candidate. `shown` is what the client's transport took of what was `read`;
    `told` is what the server had counted by then, `asked` what it says afterwards; `taught` what
    its counts say of its tokenizer."""

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
    told: Told | None = None
    asked: Asked | None = None
    taught: tuple[Sample, ...] = ()

    @property
    def is_dispatched(self) -> bool:
        """Whether a seller may have worked on it: refusals and failures to connect cost nothing."""
        return self.failure is None or self.failure.charged

    @property
    def is_billable(self) -> bool:
        """The tenant pays, unless it broke off with nothing shown."""
        if self.outcome != STOPPED and not outcomes.of(self.outcome).broke_off:
            return True
        return self.shown.chunks > 0

    def show(self, chunk: Chunk) -> None:
        """The client's transport took a chunk."""
        self.shown.add(chunk)
        if chunk.usage is not None:
            self.told = Told(chunk.usage, self.shown.size)


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
class Call:
    """What came in: from whom, in which dialect, what it asks, and who waits for the answer."""

    request_id: str
    principal: Principal
    surface: Surface
    request: ChatRequest
    client: Client


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
    ratios: Ratios = field(default_factory=lambda: Ratios(time.monotonic))
    _prompt: Prompt | None = None

    @property
    def prompt(self) -> Prompt:
        """Worked out when somebody needs it first: most requests are counted by their sellers."""
        if self._prompt is None:
            shape, size = text_features.of_request(self.request)
            self._prompt = Prompt(shape, size, text_features.beside_text(self.request))
        return self._prompt

    @property
    def last(self) -> Attempt:
        return self.attempts[-1]

    def notes(self) -> list[TriedRow]:
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
