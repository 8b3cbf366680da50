"""From tokens to text while they arrive: whole characters only, and never part of a stop string."""

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"

Decode = Callable[[Sequence[int]], str]


class TextStream:
    """Text of one request. `push` returns what can be shown; `stopped` once a stop string came."""

    def __init__(self, decode: Decode, stop: tuple[str, ...]) -> None:
        self._decode = decode
        self._stop = stop
        self._tokens: list[int] = []
        # Decoding a window that starts before the new tokens keeps the spaces between words right.
        self._window_start = 0
        self._shown_to = 0
        self._held_back = ""
        self.stopped = False

    def push(self, token: int, *, may_stop: bool = True) -> str:
        assert not self.stopped
        self._tokens.append(token)
        before = self._decode(self._tokens[self._window_start : self._shown_to])
        after = self._decode(self._tokens[self._window_start :])
        if len(after) <= len(before) or after.endswith(REPLACEMENT):
            return ""
        self._window_start, self._shown_to = self._shown_to, len(self._tokens)
        text = after[len(before) :]
        return self._release(text) if may_stop else text

    def flush(self) -> str:
        """What was held back, at the end of the request."""
        if self.stopped:
            return ""
        before = self._decode(self._tokens[self._window_start : self._shown_to])
        tail = self._decode(self._tokens[self._window_start :])[len(before) :]
        shown, self._held_back = self._held_back + tail, ""
        self._window_start = self._shown_to = len(self._tokens)
        return shown

    def _release(self, text: str) -> str:
        text = self._held_back + text
        found = [index for stop in self._stop if (index := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held_back = True, ""
            return text[: min(found)]
        keep = max((overlap(text, stop) for stop in self._stop), default=0)
        shown, self._held_back = text[: len(text) - keep], text[len(text) - keep :]
        return shown


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
