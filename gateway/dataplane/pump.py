"""The pump of one attempt: reads a seller's answer to its end, and shows it as it comes.

Nothing is shown before the first content, so that until then another candidate may take over. An
answer without its finish is a broken one, and a client is never shown it as a good one.
"""

from dataclasses import dataclass, field

from billing.outcomes import STOPPED
from gateway.clocks.stopwatch import Clock
from gateway.dataplane.exchange import Attempt, Exchange
from gateway.dataplane.inbound.watchdog import Interrupted, Silent
from gateway.dataplane.limits import Limits
from gateway.dataplane.verdicts import head_of
from gateway.routing.bounds import BYTES_PER_TOKEN_EXPECTED
from providers.chat import Chunk
from providers.errors import ProtocolError, ProviderError, StreamBroken
from providers.outbound.upstream import Answer

ERROR_BODY_BYTES_MAX = 64 * 1024


@dataclass(slots=True)
class Pump:
    exchange: Exchange
    attempt: Attempt
    answer: Answer
    limits: Limits
    # Read and not shown yet: of a stream until its first content, of a whole answer all of it.
    _held: list[Chunk] = field(default_factory=list)
    _held_bytes: int = 0

    async def run(self) -> None:
        """Read to the end, handing on what is for the client; StreamBroken without a finish. An
        upstream that does not keep to the limit of the caller's ceiling is stopped there."""
        exchange, attempt, reader = self.exchange, self.attempt, self.attempt.reader
        exchange.writer.model = attempt.candidate.offer.model
        exchange.chunks.clear()  # what an earlier attempt left unfinished is not this answer
        while True:
            data = await self._read()
            chunks = reader.end() if data is None else reader.feed(data)
            _count(attempt, chunks)
            if reader.failure is not None:
                raise reader.failure
            self._held_bytes += len(data or b"")
            if not exchange.request.stream:
                self._keep(chunks, data)
            else:
                self._held += chunks
                if self._is_time():
                    await self._show()
            if data is None:
                break
            if _is_past_ceiling(exchange, attempt):
                attempt.outcome = STOPPED
                return
        if not reader.finished:
            raise StreamBroken(
                "the answer ended before its finish", after_first_byte=bool(attempt.read.chunks)
            )

    async def _read(self) -> bytes | None:
        """The next bytes. After a finish reason silence or a cut is an end like any other."""
        exchange, attempt, limits = self.exchange, self.attempt, self.limits
        is_started = attempt.stopwatch.first is not None
        limit_s = limits.token_gap_timeout_s if is_started else limits.first_token_timeout_s
        try:
            return await exchange.client.watchdog.wait(
                self.answer.read(),
                limit_s=limit_s if exchange.request.stream else limits.deadline_s,
                reason=Silent,
                client_matters=attempt.candidate.offer.cancel_stops_billing,
            )
        except (StreamBroken, Silent):
            if attempt.reader.finished:
                return None
            raise

    def _keep(self, chunks: list[Chunk], data: bytes | None) -> None:
        """A whole answer is shown at its end."""
        self.exchange.chunks += chunks
        self.exchange.client.hold(len(data or b""))
        if self._held_bytes > self.limits.answer_bytes_max:
            raise ProtocolError("the answer is larger than allowed")

    def _is_time(self) -> bool:
        """Whether what is held may be shown: content has come, or there is no more to wait for."""
        if not self._held:
            return False
        is_too_much = self._held_bytes > self.limits.stream_bytes_max
        return self.attempt.read.chunks > 0 or self.attempt.reader.finished or is_too_much

    async def _show(self) -> None:
        """Write what is held; what the client's transport took is shown, and will be billed."""
        exchange, client, chunks = self.exchange, self.exchange.client, self._held
        data = b"".join([exchange.writer.chunk(chunk) for chunk in chunks])
        if not client.started:
            await client.start(200, head_of(exchange))
        if data:
            await client.write(data)
        for chunk in chunks:
            self.attempt.show(chunk)
        self._held, self._held_bytes = [], 0


async def drain(exchange: Exchange, attempt: Attempt, answer: Answer, *, gap_s: float) -> None:
    """Read to the end what nobody waits for any more: the seller bills all of it."""
    attempt.cancel_applied = "drain"
    try:
        while (data := await _read_alone(exchange, answer, limit_s=gap_s)) is not None:
            for chunk in attempt.reader.feed(data):
                attempt.read.add(chunk)
        for chunk in attempt.reader.end():
            attempt.read.add(chunk)
    except (ProviderError, Interrupted) as problem:
        attempt.cancel_applied = f"drain: {type(problem).__name__}"


async def error_body(exchange: Exchange, answer: Answer, *, limit_s: float, clock: Clock) -> bytes:
    """What came of it in time; the client that waits for it is not kept by single bytes."""
    body = b""
    until = clock.monotonic() + limit_s
    while len(body) < ERROR_BODY_BYTES_MAX:
        left_s = until - clock.monotonic()
        if left_s <= 0:
            break
        try:
            # It has refused: a client that leaves meanwhile owes nothing for it.
            data = await _read_alone(exchange, answer, limit_s=left_s)
        except (StreamBroken, Silent):
            break
        if data is None:
            break
        body += data
    return body


async def _read_alone(exchange: Exchange, answer: Answer, *, limit_s: float) -> bytes | None:
    return await exchange.client.watchdog.wait(
        answer.read(), limit_s=limit_s, reason=Silent, client_matters=False
    )


def _count(attempt: Attempt, chunks: list[Chunk]) -> None:
    before = attempt.read.chunks
    for chunk in chunks:
        attempt.read.add(chunk)
    if attempt.read.chunks != before:
        attempt.stopwatch.token()


def _is_past_ceiling(exchange: Exchange, attempt: Attempt) -> bool:
    """Whether a stream that was cut to the caller's ceiling goes on beyond it: by its chunks, each
    of which holds a token, and by its bytes, for some send every letter on its own."""
    candidate = attempt.candidate
    if not candidate.cut_by or not exchange.request.stream or attempt.reader.finished:
        return False
    limit, shown = candidate.output_bound, attempt.shown
    return shown.chunks > limit and shown.size > BYTES_PER_TOKEN_EXPECTED * limit
