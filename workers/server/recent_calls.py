"""What the last calls used, by the id that the caller gave them: for who lost an answer's end.

A call that was cancelled, or whose caller died, has counts like any other. They are kept for a
bounded number of calls, and tell what had been sent by the end.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from workers.server.bodies import CallUsage, UsageSoFar
from workers.server.errors import NotFound
from workers.server.responses import Answers, encode

CALLS_MAX: Final = 4096
ID_LENGTH_MAX: Final = 128
# Who asks right after a cancellation waits for the engine to notice it.
WAIT_S: Final = 2.0


@dataclass(slots=True)
class Call:
    """A call from its arrival on. `answers` are let go of once it is over."""

    answers: Answers | None = None
    usage: UsageSoFar | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self) -> None:
        if self.answers is not None:
            self.usage = self.answers.usage_so_far()
            self.answers = None
        self.over.set()


class RecentCalls:
    """The newest calls that came with an id."""

    def __init__(self) -> None:
        self._calls: OrderedDict[str, Call] = OrderedDict()

    def open(self, call_id: str) -> Call:
        """Remember a call; one without an id, or with one that is known, is nobody's to ask for."""
        call = Call()
        if 0 < len(call_id) <= ID_LENGTH_MAX and call_id not in self._calls:
            self._calls[call_id] = call
            if len(self._calls) > CALLS_MAX:
                self._calls.popitem(last=False)
        return call

    async def read(self, call_id: str) -> bytes:
        """What a call used once it is over, or so far if it goes on for longer than one waits."""
        call = self._calls.get(call_id)
        if call is None:
            raise NotFound(f"There is no call {call_id[:ID_LENGTH_MAX]} here", code="not_found")
        try:
            await asyncio.wait_for(call.over.wait(), WAIT_S)
        except TimeoutError:
            pass
        usage = call.answers.usage_so_far() if call.answers is not None else call.usage
        return encode(CallUsage(call_id, call.over.is_set(), usage))
