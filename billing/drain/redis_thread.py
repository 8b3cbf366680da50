"""The drain's second thread: it does all that is asked of Redis, in the order it was asked.

The other thread posts to PostgreSQL, and neither waits for the other's answers.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

# The posting thread asks PostgreSQL a dozen questions per batch. By default the interpreter lets
# the other one go on for up to 5 ms after each answer, while PostgreSQL has nothing to do.
SWITCH_INTERVAL_S: Final = 0.001


@contextmanager
def redis_thread() -> Iterator[ThreadPoolExecutor]:
    """One thread, for every shard of a run; what it was asked to do is done when this ends."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="drain-redis") as thread:
            yield thread
    finally:
        sys.setswitchinterval(before_s)


class Sent:
    """What the thread was asked to do and nobody waits for: acknowledgements, trims.

    It is not long: whoever waits for the thread's next batch has waited for all of it but the last.
    """

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self._thread = thread
        self._sent: deque[tuple[Future[object], Callable[[], None]]] = deque()

    def send(self, act: Callable[[], object], then: Callable[[], None] = lambda: None) -> None:
        """Have `act` done there, and `then` here, once `look` has seen that it is."""
        self._sent.append((self._thread.submit(act), then))

    def look(self) -> None:
        """Raises what any of the acts raised that are done."""
        while self._sent and self._sent[0][0].done():
            self._take()

    def wait(self) -> None:
        """The same, for all that was sent."""
        while self._sent:
            self._take()

    def _take(self) -> None:
        future, then = self._sent.popleft()
        future.result()
        then()
