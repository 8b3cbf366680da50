"""What speaks against no seller: time in which we stood still, what we lack, a slow client."""

import asyncio
import errno
import socket

import pytest

from billing.outcomes import DEADLINE, GATEWAY_ERROR, UPSTREAM_CUT, UPSTREAM_ERROR
from gateway.clocks.pulse import BEAT_S, STILL_S, Pulse
from gateway.dataplane.inbound.watchdog import LAST_READ_S, DeadlinePassed, Silent, Watchdog
from gateway.dataplane.limits import Limits
from gateway.dataplane.relay import Relay, _own_up
from gateway.dataplane.settling.lost_counts import Afterwards
from gateway.dataplane.settling.recounting import Recounting
from gateway.routing.breaker import Breaker
from providers.errors import (
    AuthFailed,
    ConnectFailed,
    OwnTrouble,
    ProviderError,
    StreamBroken,
    Timeout,
    UpstreamFailed,
)
from providers.outbound.local_errors import is_own
from tests.gateway.dataplane.settling.test_dataplane_charges import (
    OFFER,
    PRINCIPAL,
    attempt,
    exchange,
)


class HandClock:
    """Moves where it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def now_ms(self) -> int:
        return int(self.now * 1000)


class Told:
    """A pulse that says what it is told."""

    def __init__(self) -> None:
        self.said = 0.0

    def lost_s(self) -> float:
        return self.said


async def test_a_beat_that_comes_late_tells_how_long_the_process_stood_still() -> None:
    # given
    clock = HandClock()
    pulse = Pulse(clock)
    pulse.start()
    # when: a busy loop, then 33 seconds of nothing
    clock.now += BEAT_S + STILL_S
    busy = pulse.lost_s()
    clock.now += 33 + BEAT_S
    # then: known once, also before the beat itself comes
    assert busy == 0
    assert pulse.lost_s() == pytest.approx(33)
    assert pulse.lost_s() == pytest.approx(33)
    pulse.stop()


async def test_a_wait_goes_on_for_as_long_as_the_process_stood_still() -> None:
    # given
    pulse = Told()
    watchdog = Watchdog(deadline_s=5, pulse=pulse)
    loop = asyncio.get_running_loop()
    read = loop.create_future()
    loop.call_later(0.02, setattr, pulse, "said", 0.5)
    loop.call_later(0.15, read.set_result, b"what lay in the socket")
    # when / then: after its limit of 50 ms, of which it listened to none
    got = await watchdog.wait(read, limit_s=0.05, reason=Silent)
    assert got == b"what lay in the socket"
    # and: silence after that is silence again
    with pytest.raises(Silent):
        await watchdog.wait(asyncio.sleep(5), limit_s=0.02, reason=Silent)
    watchdog.close()


async def test_a_deadline_that_passed_meanwhile_leaves_time_to_read_what_has_come() -> None:
    # given
    pulse = Told()
    watchdog = Watchdog(deadline_s=0.05, pulse=pulse)
    before = watchdog.deadline
    loop = asyncio.get_running_loop()
    loop.call_later(0.02, setattr, pulse, "said", 0.2)
    # when
    got = await watchdog.wait(asyncio.sleep(0.1, "it"), limit_s=9, reason=Silent)
    # then: and no more than that
    assert got == "it"
    assert watchdog.deadline == pytest.approx(before + 0.2)
    pulse.said += 1_000
    with pytest.raises(DeadlinePassed):
        await watchdog.wait(asyncio.sleep(5), limit_s=9, reason=Silent)
    assert watchdog.deadline < before + LAST_READ_S
    watchdog.close()


@pytest.mark.parametrize(
    ("outcome", "problem", "expected"),
    [
        (UPSTREAM_CUT, StreamBroken("cut", after_first_byte=True), GATEWAY_ERROR),
        (UPSTREAM_ERROR, Timeout("silent"), GATEWAY_ERROR),
        (UPSTREAM_ERROR, ConnectFailed("late"), GATEWAY_ERROR),
        (DEADLINE, Timeout("deadline"), DEADLINE),
    ],
)
def test_what_ended_while_we_did_not_listen_speaks_against_nobody(
    outcome: str, problem: ProviderError, expected: str
) -> None:
    ended = attempt(outcome, failure=problem)

    _own_up(ended, still_s=33.0)

    assert ended.outcome == expected
    assert isinstance(ended.failure, OwnTrouble)
    assert ended.failure.charged == problem.charged
    assert not ended.failure.counts


@pytest.mark.parametrize("problem", [AuthFailed("x"), UpstreamFailed("x")])
def test_what_a_seller_said_itself_stands(problem: ProviderError) -> None:
    ended = attempt(UPSTREAM_ERROR, failure=problem)

    _own_up(ended, still_s=33.0)

    assert (ended.outcome, ended.failure) == (UPSTREAM_ERROR, problem)


@pytest.mark.parametrize(
    ("problem", "ours"),
    [
        (OSError(errno.EMFILE, "Too many open files"), True),
        (OSError(errno.ENFILE, "Too many open files in system"), True),
        (OSError(errno.EADDRNOTAVAIL, "no port"), True),
        (OSError(errno.ENETUNREACH, "no route"), True),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), True),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), False),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), False),
        (ConnectionResetError(errno.ECONNRESET, "reset"), False),
        (OSError(errno.EHOSTUNREACH, "no host"), False),
    ],
)
def test_whose_trouble_an_error_of_the_machine_is(problem: OSError, ours: bool) -> None:
    assert is_own(problem) is ours


@pytest.mark.parametrize(("read", "state"), [(160, "closed"), (0, "open")])
def test_a_slow_reader_s_deadline_does_not_close_an_offer_that_was_answering(
    read: int, state: str
) -> None:
    # given
    breaker = Breaker()
    relay = Relay(
        upstream=None,  # type: ignore[arg-type]
        breaker=breaker,
        limits=Limits(),
        clock=HandClock(),
        pulse=Told(),  # type: ignore[arg-type]
        afterwards=Afterwards(None),  # type: ignore[arg-type]
        recounting=Recounting(None, HandClock().monotonic),  # type: ignore[arg-type]
    )
    # when: three requests in a row use up all of their time
    for _ in range(3):
        ended = attempt("deadline", shown=read, read=read, failure=Timeout("deadline"))
        relay._report(exchange(ended), ended)
    # then
    assert breaker.state(OFFER.access, PRINCIPAL.tenant_id, 0) == state
