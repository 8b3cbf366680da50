"""Prompt lookup: what followed the last time the text ended like this will follow again."""

from collections.abc import Sequence
from functools import cache

from workers.speculation.protocol import NO_DRAFT, Ask, Draft, Evidence

NAME = "ngram"
MATCH_MAX = 32


class NgramProposer:
    """Remembers where every n-gram of each request's text last ended."""

    runs_model = False

    def __init__(self, *, shortest: int, longest: int) -> None:
        self._sizes = range(longest, shortest - 1, -1)
        self._texts: dict[str, _Text] = {}

    def propose(self, asks: Sequence[Ask]) -> list[Draft]:
        """What came after the latest earlier occurrence of the longest known suffix."""
        return [self._propose(ask) for ask in asks]

    def forget(self, key: str) -> None:
        self._texts.pop(key, None)

    def _propose(self, ask: Ask) -> Draft:
        text = self._texts.get(ask.key)
        if text is None:
            text = self._texts[ask.key] = _Text(self._sizes)
        position = text.find(ask.tokens)
        if position is None:
            return NO_DRAFT
        tokens = _copy(ask.tokens, position, ask.limit)
        length = match_length(ask.tokens, len(ask.tokens), ask.tokens, position)
        return Draft(tokens, lookup_evidence(NAME, length, len(tokens)))


class _Text:
    def __init__(self, sizes: range) -> None:
        self._sizes = sizes
        self._next_position: dict[tuple[int, ...], int] = {}
        self._indexed_to = 0

    def find(self, tokens: Sequence[int]) -> int | None:
        self._index(tokens)
        end = len(tokens)
        for size in self._sizes:
            if size < end:
                position = self._next_position.get(tuple(tokens[end - size :]))
                if position is not None:
                    return position
        return None

    def _index(self, tokens: Sequence[int]) -> None:
        """Index n-grams that end before the last token: the text's own end must not match."""
        for end in range(self._indexed_to + 1, len(tokens)):
            for size in self._sizes:
                if size <= end:
                    self._next_position[tuple(tokens[end - size : end])] = end
        self._indexed_to = max(self._indexed_to, len(tokens) - 1)


def match_length(text: Sequence[int], end: int, other: Sequence[int], other_end: int) -> int:
    """How many tokens before both ends are the same, at most `MATCH_MAX`."""
    length = 0
    while (
        length < min(MATCH_MAX, end, other_end)
        and text[end - 1 - length] == other[other_end - 1 - length]
    ):
        length += 1
    return length


def lookup_evidence(name: str, length: int, count: int) -> list[Evidence]:
    """A guess whose predecessors are right stands behind a match that is longer by them.

    So each guess has the evidence of the match it would then have, and what is learned of the first
    guess of a draft, which is judged in every step, holds for the later ones of shorter matches.
    """
    kinds = _kinds(name)
    return [kinds[min(length + depth, MATCH_MAX) - 1] for depth in range(count)]


@cache
def _kinds(name: str) -> list[Evidence]:
    """By the length of the match, from 1 to `MATCH_MAX`."""
    return [Evidence(name, match_strength(n), depth=0) for n in range(1, MATCH_MAX + 1)]


def match_strength(length: int) -> int:
    """Up to 4 tokens each length is a kind of its own, then each doubling."""
    return length if length <= 4 else length.bit_length() + 2


def _copy(tokens: Sequence[int], position: int, limit: int) -> list[int]:
    """`limit` tokens from `position`; past the end of the text a repetition goes on repeating."""
    copied = list(tokens[position : position + limit])
    while len(copied) < limit:
        copied.append(copied[len(copied) - (len(tokens) - position)])
    return copied
