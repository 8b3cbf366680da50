"""Prompt lookup: what followed the last time the text ended like this will follow again."""

from collections.abc import Sequence

from workers.speculation.protocol import NO_DRAFT, Draft


class NgramProposer:
    """Remembers where every n-gram of one request's text last ended."""

    def __init__(self, *, shortest: int, longest: int) -> None:
        self._sizes = range(longest, shortest - 1, -1)
        self._next_position: dict[tuple[int, ...], int] = {}
        self._indexed_to = 0

    def propose(self, tokens: Sequence[int], limit: int) -> Draft:
        """Up to `limit` tokens after the latest earlier occurrence of the longest known suffix."""
        self._index(tokens)
        end = len(tokens)
        for size in self._sizes:
            if size >= end:
                continue
            position = self._next_position.get(tuple(tokens[end - size :]))
            if position is not None:
                return Draft(tokens=_copy(tokens, position, limit), evidence=size)
        return NO_DRAFT

    def _index(self, tokens: Sequence[int]) -> None:
        """Index n-grams that end before the last token: the text's own end must not match."""
        for end in range(self._indexed_to + 1, len(tokens)):
            for size in self._sizes:
                if size <= end:
                    self._next_position[tuple(tokens[end - size : end])] = end
        self._indexed_to = max(self._indexed_to, len(tokens) - 1)


def _copy(tokens: Sequence[int], position: int, limit: int) -> list[int]:
    """`limit` tokens from `position`; past the end of the text a repetition goes on repeating."""
    copied = list(tokens[position : position + limit])
    while len(copied) < limit:
        copied.append(copied[len(copied) - (len(tokens) - position)])
    return copied
