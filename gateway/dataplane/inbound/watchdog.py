"""Ends a wait when the client leaves, a limit passes or the deadline comes.

One per request, in the task that serves it. It interrupts only inside `wait`, by cancelling the
task once and turning that cancellation into the reason; a cancellation by anybody else passes
through untouched. One timer per request, re-armed lazily: a stream of a thousand tokens costs
no thousand timers.

Time in which this process itself stood still counts for no limit: what lies in the sockets then is
read before anything is judged.
"""

import asyncio
from collections.abc import Awaitable
from typing import Protocol, TypeVar

# What a deadline that passed while the process stood still leaves for reading what has come.
LAST_READ_S = 5.0

T = TypeVar("T")


class Interrupted(Exception):
    """Why a wait was ended."""


class ClientLeft(Interrupted):
    """The client closed its connection."""


class ClientStalled(Interrupted):
    """The client takes no more bytes."""


class Silent(Interrupted):
    """The upstream sent nothing for longer than its limit."""


class DeadlinePassed(Interrupted):
    """The request has used up all of its time."""


class Pulse(Protocol):
    """How long this process stood still, ever."""

    def lost_s(self) -> float: ...


class Watchdog:
    """See the module. `deadline` is on the loop's clock."""

    __slots__ = (
        "_armed",
        "_client_matters",
        "_due",
        "_fired",
        "_loop",
        "_lost_s",
        "_pulse",
        "_reason",
        "_task",
        "_timer",
        "_timer_at",
        "client_left",
        "deadline",
        "ended",
    )

    def __init__(self, *, deadline_s: float, pulse: Pulse) -> None:
        self._pulse = pulse
        self._lost_s = 0.0
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self.deadline = self._loop.time() + deadline_s
        self.client_left = False
        self.ended = False  # by `end_now`
        self._armed = False
        self._client_matters = False
        self._due = self.deadline
        self._reason: type[Interrupted] = DeadlinePassed
        self._fired: type[Interrupted] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    async def wait(
        self,
        awaitable: Awaitable[T],
        *,
        limit_s: float,
        reason: type[Interrupted],
        client_matters: bool = True,
    ) -> T:
        """The awaitable's result, or the reason why nobody waits for it any longer."""
        if client_matters and self.client_left:
            _discard(awaitable)
            raise ClientLeft
        self._lost_s = self._pulse.lost_s()
        due = self._loop.time() + limit_s
        self._due, self._reason = due, reason
        if due > self.deadline:
            self._due, self._reason = self.deadline, DeadlinePassed
        self._client_matters = client_matters
        self._armed = True
        self._set_timer()
        try:
            return await awaitable
        except asyncio.CancelledError:
            if self._fired is None:
                raise
            fired, self._fired = self._fired, None
            self._task.uncancel()
            raise fired from None
        finally:
            self._armed = False

    def note_client_left(self) -> None:
        """Called when the transport reports that the client is gone."""
        self.client_left = True
        if self._armed and self._client_matters:
            self._fire(ClientLeft)

    def end_now(self) -> None:
        """The deadline is now: the current wait ends, and so does every later one."""
        self.ended = True
        self.deadline = self._loop.time()
        if self._armed:
            self._fire(DeadlinePassed)

    def grant(self, seconds: float) -> None:
        """Time for the last words, whatever the deadline was."""
        self.deadline = max(self.deadline, self._loop.time() + seconds)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        if self._timer is not None:
            if self._timer_at <= self._due:
                return
            self._timer.cancel()
        self._timer_at = self._due
        self._timer = self._loop.call_at(self._due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if not self._armed:
            return
        self._forgive()
        if self._loop.time() >= self._due:
            self._fire(self._reason)
        else:
            self._set_timer()

    def _forgive(self) -> None:
        """Lengthen the wait by the time in which nobody waited."""
        still_s = self._pulse.lost_s() - self._lost_s
        if not still_s:
            return
        self._lost_s += still_s
        if self._due >= self.deadline:
            self.deadline += min(still_s, LAST_READ_S)
        self._due = min(self._due + still_s, self.deadline)

    def _fire(self, reason: type[Interrupted]) -> None:
        if self._fired is None:
            self._fired = reason
            self._task.cancel()


def _discard(awaitable: object) -> None:
    """A coroutine that nobody will await is closed, so that Python does not complain."""
    close = getattr(awaitable, "close", None)
    if close is not None:
        close()
