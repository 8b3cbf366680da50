"""Open-closed guard per offer and caller: who keeps failing at an offer is kept from it a while.

Pure: whoever uses it brings the clock. Failures are counted per caller, because a request may be
sick and not the offer: FAILURES_MAX in a row within FAILURE_WINDOW_MS close the offer to that
caller. It is closed to all where the credential that all share was refused, or where CALLERS_MIN
callers failed and nobody was served between. When a pause is over one trial goes through: its
outcome decides, and failed trials double the pause. A caller whom the offer is closed to is no
judge of it for others.

Offers are known by `OfferView.access`, which changes with address, credential and limits, so that
what was held against the old ones ends with them. Each data plane process keeps its own marks, a
bounded number; the oldest give way.
"""

from dataclasses import dataclass, field
from typing import Literal

FAILURES_MAX = 3
CALLERS_MIN = 3
FAILURE_WINDOW_MS = 30_000
OPEN_MS = 2_000
OPEN_MS_MAX = 30_000
RETRY_AFTER_MS_MAX = 300_000
# A credential that was refused stays refused until somebody acts, and acting ends the pause.
PERMANENT_OPEN_MS = 300_000
# A trial whose outcome was never reported does not keep the offer shut for ever.
TRIAL_MS_MAX = 60_000
MARKS_MAX = 50_000

State = Literal["closed", "open", "half_open"]
Access = tuple[int, str]


@dataclass(slots=True)
class _Mark:
    """A pause and what led to it."""

    failures: int = 0
    first_failure_ms: int = 0
    open_until_ms: int = 0
    open_ms: int = 0
    trial_since_ms: int = 0
    reason: str = ""

    def allows(self, now_ms: int) -> bool:
        if not self.open_until_ms:
            return True
        if now_ms < self.open_until_ms:
            return False
        return not self.trial_since_ms or now_ms - self.trial_since_ms >= TRIAL_MS_MAX

    def count(self, now_ms: int) -> None:
        if self.failures and now_ms - self.first_failure_ms > FAILURE_WINDOW_MS:
            self.failures = 0
        if not self.failures:
            self.first_failure_ms = now_ms
        self.failures += 1

    def open(self, now_ms: int, open_ms: int) -> None:
        self.open_ms = max(open_ms, OPEN_MS)
        self.open_until_ms = max(self.open_until_ms, now_ms + open_ms)
        self.trial_since_ms = 0
        self.failures = 0

    def was_trial(self, now_ms: int) -> bool:
        return bool(self.open_until_ms) and now_ms >= self.open_until_ms

    def why(self, now_ms: int) -> str:
        cause = self.reason or "repeated failures"
        left_ms = self.open_until_ms - now_ms
        if left_ms <= 0:
            return f"after {cause}: one trial is under way"
        return f"after {cause}: closed to requests for another {-(-left_ms // 1000)} s"


@dataclass(slots=True)
class _Offer:
    """What concerns all callers. `run` are those who failed since somebody was last served, with
    the time of it; `judge` is whose trial decides."""

    mark: _Mark = field(default_factory=_Mark)
    run: dict[int, int] = field(default_factory=dict)
    judge: int | None = None


class Breaker:
    """See the module. An offer that never failed costs nothing."""

    def __init__(self) -> None:
        self._offers: dict[Access, _Offer] = {}
        self._marks: dict[tuple[Access, int], _Mark] = {}

    def allow(self, access: Access, caller: int, now_ms: int) -> bool:
        """Whether a request may go there now. Changes nothing, so ranking may ask for all."""
        return self._closing(access, caller, now_ms) is None

    def _closing(self, access: Access, caller: int, now_ms: int) -> _Mark | None:
        """The mark that keeps this caller out now."""
        offer = self._offers.get(access)
        if offer is None:
            return None
        own = self._marks.get((access, caller))
        if own is not None and not own.allows(now_ms):
            return own
        if offer.mark.allows(now_ms):
            return None
        is_own_trial = own is not None and own.open_until_ms and now_ms >= offer.mark.open_until_ms
        return None if is_own_trial else offer.mark

    def begin(self, access: Access, caller: int, now_ms: int) -> None:
        """An attempt goes out: where the offer was open, this one is the trial."""
        offer = self._offers.get(access)
        if offer is None:
            return
        own = self._marks.get((access, caller))
        if own is not None and own.open_until_ms:
            own.trial_since_ms = now_ms
        elif offer.mark.open_until_ms:
            offer.mark.trial_since_ms = now_ms
            offer.judge = caller

    def success(self, access: Access, caller: int, now_ms: int) -> None:
        """Served: the offer is open again to all, but for those who failed at it themselves."""
        offer = self._offers.get(access)
        if offer is None:
            return
        self._marks.pop((access, caller), None)
        offer.run.clear()
        if offer.mark.open_until_ms:
            offer.mark = _Mark()
            offer.judge = None

    def release(self, access: Access, caller: int) -> None:
        """An attempt ended in a way that says nothing of the offer: another may be the trial."""
        offer = self._offers.get(access)
        if offer is None:
            return
        own = self._marks.get((access, caller))
        if own is not None:
            own.trial_since_ms = 0
        if offer.judge == caller:
            offer.mark.trial_since_ms = 0
            offer.judge = None

    def failure(
        self,
        access: Access,
        caller: int,
        now_ms: int,
        *,
        reason: str = "",
        permanent: bool = False,
        retry_after_ms: int = 0,
        concerns_all: bool = False,
    ) -> None:
        """Count a failure. `retry_after_ms` is how long the offer itself asked to be left;
        `permanent` is what only a person can mend; `concerns_all` what no request can cause."""
        pause_ms = min(retry_after_ms, RETRY_AFTER_MS_MAX)
        if permanent:
            pause_ms = PERMANENT_OPEN_MS
        offer = self._renewed(access)
        own = self._own(access, caller)
        was_trial = own.was_trial(now_ms)
        _judge(own, now_ms, reason=reason, was_trial=was_trial, pause_ms=pause_ms)
        offer.run.pop(caller, None)
        offer.run[caller] = now_ms
        if len(offer.run) > CALLERS_MIN:
            del offer.run[next(iter(offer.run))]
        is_judge = offer.judge == caller and offer.mark.was_trial(now_ms)
        if offer.judge == caller:
            offer.judge = None
        if concerns_all or is_judge or self._is_common(offer, now_ms):
            offer.mark.reason = reason
            if is_judge and not pause_ms:
                pause_ms = min(2 * offer.mark.open_ms, OPEN_MS_MAX)
            offer.mark.open(now_ms, pause_ms or OPEN_MS)

    def _is_common(self, offer: _Offer, now_ms: int) -> bool:
        """Whether so many callers failed in a row that it cannot be their requests; where the
        offer is closed to all anyway, its pause stays as it is."""
        if offer.mark.open_until_ms:
            return False
        recent = sum(now_ms - at <= FAILURE_WINDOW_MS for at in offer.run.values())
        return recent >= CALLERS_MIN

    def _renewed(self, access: Access) -> _Offer:
        """The offer's record, moved to the end: the least recently failed gives way."""
        offer = self._offers.pop(access, None) or _Offer()
        self._offers[access] = offer
        if len(self._offers) > MARKS_MAX:
            del self._offers[next(iter(self._offers))]
        return offer

    def _own(self, access: Access, caller: int) -> _Mark:
        mark = self._marks.pop((access, caller), None) or _Mark()
        self._marks[access, caller] = mark
        if len(self._marks) > MARKS_MAX:
            del self._marks[next(iter(self._marks))]
        return mark

    def state(self, access: Access, caller: int, now_ms: int) -> State:
        """As this caller sees it."""
        offer = self._offers.get(access)
        if offer is None:
            return "closed"
        own = self._marks.get((access, caller))
        until_ms = max(offer.mark.open_until_ms, own.open_until_ms if own else 0)
        if not until_ms:
            return "closed"
        return "open" if now_ms < until_ms else "half_open"

    def why(self, access: Access, caller: int, now_ms: int) -> str:
        """In words, with the seconds left; empty where the offer may be tried."""
        closing = self._closing(access, caller, now_ms)
        return "" if closing is None else closing.why(now_ms)

    def retry_after_ms(self, access: Access, caller: int, now_ms: int) -> int:
        """How long until this caller may try the offer; 0 where it may now."""
        closing = self._closing(access, caller, now_ms)
        return 0 if closing is None else max(0, closing.open_until_ms - now_ms)


def _judge(mark: _Mark, now_ms: int, *, reason: str, was_trial: bool, pause_ms: int) -> None:
    """A caller's own failure: whether the offer is closed to it, and for how long."""
    mark.reason = reason
    mark.count(now_ms)
    if pause_ms:
        mark.open(now_ms, pause_ms)
    elif was_trial:
        mark.open(now_ms, min(2 * mark.open_ms, OPEN_MS_MAX))
    elif mark.failures >= FAILURES_MAX:
        mark.open(now_ms, OPEN_MS)
