"""Open-closed guard per offer: an offer that keeps failing is left alone for a while.

Pure: the caller brings the clock. Closed until FAILURES_MAX failures in a row within
FAILURE_WINDOW_MS, or one that only a person can mend; then open for a time that doubles
with every failed trial. When it is over one trial goes through: its outcome decides. Each
data plane process keeps its own.
"""

from dataclasses import dataclass
from typing import Literal

FAILURES_MAX = 3
FAILURE_WINDOW_MS = 30_000
OPEN_MS = 10_000
OPEN_MS_MAX = 300_000
# A credential that was refused stays refused until somebody acts.
PERMANENT_OPEN_MS = 300_000
# A trial whose outcome was never reported does not keep the offer shut for ever.
TRIAL_MS_MAX = 60_000

State = Literal["closed", "open", "half_open"]


@dataclass(slots=True)
class _Record:
    failures: int = 0
    first_failure_ms: int = 0
    open_until_ms: int = 0
    open_ms: int = 0
    trial_since_ms: int = 0
    reason: str = ""


class Breaker:
    """Bounded by the number of offers that ever failed; a success forgets the offer."""

    def __init__(self) -> None:
        self._records: dict[int, _Record] = {}

    def allow(self, offer_id: int, now_ms: int) -> bool:
        """Whether a request may go there now. Changes nothing, so ranking may ask for all."""
        record = self._records.get(offer_id)
        if record is None or not record.open_until_ms:
            return True
        if now_ms < record.open_until_ms:
            return False
        return not record.trial_since_ms or now_ms - record.trial_since_ms >= TRIAL_MS_MAX

    def begin(self, offer_id: int, now_ms: int) -> None:
        """An attempt goes out: where the offer was open, this one is the trial."""
        record = self._records.get(offer_id)
        if record is not None and record.open_until_ms:
            record.trial_since_ms = now_ms

    def success(self, offer_id: int, now_ms: int) -> None:
        self._records.pop(offer_id, None)

    def failure(
        self,
        offer_id: int,
        now_ms: int,
        *,
        reason: str = "",
        permanent: bool = False,
        retry_after_ms: int = 0,
    ) -> None:
        """Count a failure; `retry_after_ms` is how long the offer itself asked to be left."""
        record = self._records.setdefault(offer_id, _Record())
        record.reason = reason
        if record.failures and now_ms - record.first_failure_ms > FAILURE_WINDOW_MS:
            record.failures = 0
        if not record.failures:
            record.first_failure_ms = now_ms
        record.failures += 1
        was_trial = bool(record.open_until_ms) and now_ms >= record.open_until_ms
        if permanent:
            self._open(record, now_ms, PERMANENT_OPEN_MS)
        elif retry_after_ms:
            self._open(record, now_ms, min(retry_after_ms, OPEN_MS_MAX))
        elif was_trial:
            self._open(record, now_ms, min(2 * record.open_ms, OPEN_MS_MAX))
        elif record.failures >= FAILURES_MAX:
            self._open(record, now_ms, OPEN_MS)

    def _open(self, record: _Record, now_ms: int, open_ms: int) -> None:
        record.open_ms = max(open_ms, OPEN_MS)
        record.open_until_ms = max(record.open_until_ms, now_ms + open_ms)
        record.trial_since_ms = 0
        record.failures = 0

    def state(self, offer_id: int, now_ms: int) -> State:
        record = self._records.get(offer_id)
        if record is None or not record.open_until_ms:
            return "closed"
        return "open" if now_ms < record.open_until_ms else "half_open"

    def why(self, offer_id: int, now_ms: int) -> str:
        """In words, with the seconds left; empty where the offer is closed."""
        record = self._records.get(offer_id)
        if record is None or not record.open_until_ms:
            return ""
        cause = record.reason or "repeated failures"
        left_ms = record.open_until_ms - now_ms
        if left_ms <= 0:
            return f"after {cause}: one trial is under way"
        return f"after {cause}: closed to requests for another {-(-left_ms // 1000)} s"

    def retry_after_ms(self, offer_id: int, now_ms: int) -> int:
        """How long until the offer may be tried; 0 where it may be now."""
        record = self._records.get(offer_id)
        return 0 if record is None else max(0, record.open_until_ms - now_ms)
