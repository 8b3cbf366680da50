"""The pump: what is shown when, what is kept, and what counts as an end. Fed by hand."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.outcomes import STOPPED
from gateway.dataplane.exchange import Attempt, Exchange
from gateway.dataplane.inbound.watchdog import Silent
from gateway.dataplane.limits import Limits
from gateway.dataplane.pump import ERROR_BODY_BYTES_MAX, Pump, drain, error_body
from gateway.routing.bounds import BYTES_PER_TOKEN_EXPECTED
from providers.chat import Chunk
from providers.errors import ProtocolError, ProviderError, StreamBroken
from tests.gateway.dataplane.settling import test_dataplane_charges as table

LIMITS = Limits(answer_bytes_max=1_000, stream_bytes_max=64)
ROLE, PING = b"r", b"p"


@dataclass
class Answer:
    """What a seller sends, piece by piece; an exception is raised in its place."""

    pieces: list[bytes | Exception]
    limits_s: list[float] = field(default_factory=list)

    async def read(self) -> bytes | None:
        if not self.pieces:
            return None
        piece = self.pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece


@dataclass
class Watchdog:
    """Waits, and notes for how long it would have."""

    waits: list[tuple[float, bool]] = field(default_factory=list)

    async def wait(
        self,
        awaitable: Any,
        *,
        limit_s: float,
        reason: type[Exception],
        client_matters: bool = True,
    ) -> Any:
        self.waits.append((limit_s, client_matters))
        return await awaitable


@dataclass
class Client:
    watchdog: Watchdog = field(default_factory=Watchdog)
    started: bool = False
    written: list[bytes] = field(default_factory=list)
    held: int = 0

    async def start(self, status: int, head: object) -> None:
        assert not self.started, "an answer begins once"
        self.started = True

    async def write(self, data: bytes) -> None:
        assert self.started
        self.written.append(data)

    def hold(self, size: int) -> None:
        self.held += size


@dataclass
class Writer:
    model: str = ""
    content_type: bytes = b"text/event-stream"

    def chunk(self, chunk: Chunk) -> bytes:
        return b"" if chunk.hidden else chunk.raw


@dataclass
class Reader:
    """A letter is content, `r` a role, `p` a ping, `.` the finish, `!` a failure."""

    failure: ProviderError | None = None
    finished: bool = False
    usage: None = None
    usage_extra: dict[str, Any] = field(default_factory=dict)

    def feed(self, data: bytes) -> list[Chunk]:
        return [self._chunk(bytes([letter])) for letter in data]

    def _chunk(self, letter: bytes) -> Chunk:
        if letter == b".":
            self.finished = True
        if letter == b"!":
            self.failure = ProtocolError("nonsense")
        text = letter.decode() if letter.isalpha() and letter not in (ROLE, PING) else ""
        return Chunk(letter, "openai", text, hidden=letter == PING)

    def end(self) -> list[Chunk]:
        return []


def exchange(*, stream: bool = True, cut_to: int = 0) -> tuple[Exchange, Attempt]:
    candidate = table.CANDIDATE
    if cut_to:
        candidate = type(candidate)(
            **{name: getattr(candidate, name) for name in candidate.__struct_fields__}
            | {"cut_by": "max_cost", "output_bound": cut_to}
        )
    attempt = table.attempt("")
    attempt.reader, attempt.candidate = Reader(), candidate  # type: ignore[assignment]
    made = table.exchange(attempt)
    request = replace(table.REQUEST, stream=stream)
    return replace(made, request=request, client=Client(), writer=Writer()), attempt  # type: ignore[arg-type]


async def pumped(
    *pieces: bytes | Exception, stream: bool = True, cut_to: int = 0, limits: Limits = LIMITS
) -> tuple[Exchange, Attempt, Exception | None]:
    made, attempt = exchange(stream=stream, cut_to=cut_to)
    try:
        await Pump(made, attempt, Answer(list(pieces)), limits).run()  # type: ignore[arg-type]
    except (ProviderError, Silent) as problem:
        return made, attempt, problem
    return made, attempt, None


def client_of(made: Exchange) -> Client:
    client = made.client
    assert isinstance(client, Client)
    return client


async def test_nothing_is_shown_before_the_first_content() -> None:
    made, attempt, problem = await pumped(
        b"r", b"p", b"r", StreamBroken("", after_first_byte=False)
    )

    assert isinstance(problem, StreamBroken)
    assert (client_of(made).started, client_of(made).written) == (False, [])
    assert (attempt.read.chunks, attempt.shown.chunks) == (0, 0)


async def test_what_came_before_is_shown_with_it_in_its_order() -> None:
    made, attempt, problem = await pumped(b"r", b"p", b"ab", b"c", b".")

    assert problem is None
    assert client_of(made).written == [b"rab", b"c", b"."]
    assert (attempt.read.size, attempt.shown.size) == (3, 3)
    assert made.writer.model == table.OFFER.model


async def test_so_much_of_nothing_is_shown_as_it_is() -> None:
    """A seller that sends roles for ever is not kept in memory for ever."""
    made, attempt, _ = await pumped(b"r" * 64, b"r", b"r", StreamBroken("", after_first_byte=False))

    assert client_of(made).written == [b"r" * 65]
    assert attempt.read.chunks == 0


async def test_an_answer_that_ends_without_its_finish_is_broken() -> None:
    for pieces, after in (((b"r",), False), ((b"ra", b"b"), True)):
        _, attempt, problem = await pumped(*pieces)

        assert isinstance(problem, StreamBroken)
        assert problem.after_first_byte is after
        assert attempt.shown.chunks == attempt.read.chunks


@pytest.mark.parametrize("end", [StreamBroken("cut", after_first_byte=True), Silent()])
async def test_after_a_finish_a_cut_or_silence_is_an_end_like_any_other(end: Exception) -> None:
    made, _, problem = await pumped(b"ab.", end)

    assert problem is None
    assert client_of(made).written == [b"ab."]


async def test_before_it_they_are_none() -> None:
    for end in (StreamBroken("cut", after_first_byte=True), Silent()):
        made, attempt, problem = await pumped(b"ab", end)

        assert problem is end
        assert client_of(made).written == [b"ab"]
        assert attempt.shown.size == 2


async def test_what_a_failure_came_with_is_counted_and_not_shown() -> None:
    made, attempt, problem = await pumped(b"ab", b"c!")

    assert isinstance(problem, ProtocolError)
    assert client_of(made).written == [b"ab"]
    assert (attempt.read.size, attempt.shown.size) == (3, 2)


async def test_a_whole_answer_is_kept_and_nothing_of_it_shown() -> None:
    made, attempt, problem = await pumped(b"ab", b"c.", stream=False)

    assert problem is None
    assert [chunk.raw for chunk in made.chunks] == [b"a", b"b", b"c", b"."]
    assert (client_of(made).started, client_of(made).held) == (False, 4)
    assert attempt.shown.size == 0


async def test_a_whole_answer_larger_than_allowed_is_none() -> None:
    just = await pumped(b"a" * 500, b"b" * 499 + b".", stream=False)
    beyond = await pumped(b"a" * 500, b"b" * 500 + b".", stream=False)

    assert just[2] is None
    assert isinstance(beyond[2], ProtocolError)


async def test_what_an_earlier_attempt_left_is_not_this_answer() -> None:
    made, attempt = exchange(stream=False)
    made.chunks.append(Chunk(b"x", text="x"))

    await Pump(made, attempt, Answer([b"a."]), LIMITS).run()  # type: ignore[arg-type]

    assert [chunk.raw for chunk in made.chunks] == [b"a", b"."]


async def test_a_seller_that_goes_on_beyond_the_ceiling_is_stopped() -> None:
    letters = [b"a"] * (BYTES_PER_TOKEN_EXPECTED * 3 + 5)

    made, attempt, problem = await pumped(*letters, cut_to=3)

    assert (problem, attempt.outcome) == (None, STOPPED)
    assert attempt.shown.chunks == BYTES_PER_TOKEN_EXPECTED * 3 + 1
    assert len(client_of(made).written) == attempt.shown.chunks


async def test_one_that_sends_every_letter_apart_is_within_it() -> None:
    letters = [b"a"] * (BYTES_PER_TOKEN_EXPECTED * 3) + [b"."]

    _, attempt, problem = await pumped(*letters, cut_to=3)

    assert (problem, attempt.outcome) == (None, "")


async def test_without_a_ceiling_nobody_is_stopped() -> None:
    _, attempt, problem = await pumped(*[b"a"] * 500, b".")

    assert (problem, attempt.outcome) == (None, "")


async def test_the_first_token_may_take_longer_than_the_next() -> None:
    limits = replace(LIMITS, first_token_timeout_s=120, token_gap_timeout_s=30, deadline_s=600)

    streamed, _, _ = await pumped(b"r", b"a", b"b.", limits=limits)
    whole, _, _ = await pumped(b"a", b"b.", stream=False, limits=limits)

    assert [limit for limit, _ in client_of(streamed).watchdog.waits] == [120, 120, 30, 30]
    assert [limit for limit, _ in client_of(whole).watchdog.waits] == [600, 600, 600]


async def test_a_drain_reads_to_the_end_for_nobody() -> None:
    made, attempt = exchange()
    client_of(made).started = True

    await drain(made, attempt, Answer([b"ab", b"c."]), gap_s=7)  # type: ignore[arg-type]

    assert (attempt.read.size, attempt.shown.size, attempt.cancel_applied) == (3, 0, "drain")
    assert client_of(made).watchdog.waits == [(7, False)] * 3
    assert client_of(made).written == []


@pytest.mark.parametrize("end", [StreamBroken("cut", after_first_byte=True), Silent()])
async def test_a_drain_that_breaks_off_says_why_and_keeps_what_it_read(end: Exception) -> None:
    made, attempt = exchange()

    await drain(made, attempt, Answer([b"ab", end]), gap_s=7)  # type: ignore[arg-type]

    assert attempt.cancel_applied == f"drain: {type(end).__name__}"
    assert attempt.read.size == 2


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        self.now_s += 1
        return self.now_s

    def now_ms(self) -> int:
        return int(self.now_s * 1000)


async def test_the_words_of_a_refusal_are_read_within_bounds_of_size_and_time() -> None:
    made, _ = exchange()
    endless = Answer([b"x" * 10_000] * 100)
    slow = Answer([b"x"] * 100)

    large = await error_body(made, endless, limit_s=500, clock=Clock())  # type: ignore[arg-type]
    late = await error_body(made, slow, limit_s=5, clock=Clock())  # type: ignore[arg-type]

    assert ERROR_BODY_BYTES_MAX <= len(large) < ERROR_BODY_BYTES_MAX + 10_000
    assert len(late) == 4


async def test_a_refusal_that_breaks_off_is_read_as_far_as_it_came() -> None:
    made, _ = exchange()
    answer = Answer([b"{", StreamBroken("cut", after_first_byte=False)])

    assert await error_body(made, answer, limit_s=5, clock=Clock()) == b"{"  # type: ignore[arg-type]


letters = st.binary(min_size=0, max_size=30).map(
    lambda data: bytes(b"abcrp"[byte % 5] for byte in data)
)


@given(st.lists(letters, max_size=12), st.booleans())
def test_whatever_comes_is_shown_once_in_its_order_or_not_at_all(
    pieces: list[bytes], finishes: bool
) -> None:
    """How an answer is cut into pieces changes nothing of what a client is shown."""
    ends = [b"."] if finishes else []

    made, attempt, problem = asyncio.run(pumped(*pieces, *ends, limits=Limits()))

    said = b"".join(pieces + ends)
    shown = b"".join(client_of(made).written)
    assert said.replace(b"p", b"").startswith(shown)
    assert attempt.shown.size == attempt.read.size
    assert (problem is None) == finishes
    has_content = any(letter in b"abc" for letter in said)
    assert bool(shown) == (has_content or finishes)
    if finishes:
        assert shown == said.replace(b"p", b"")
