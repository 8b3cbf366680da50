"""Suffix lookup over past requests: what followed this ending in other answers will follow again.

After SuffixDecoding (Oliaro et al. 2025), with an index of positions in place of a tree: answers of
one tenant (salt) are kept as they are, every run of `KEY` tokens points to where it ended, and the
places that match the longest end of a text vote for each next token. Bounded: the least recently
used tenant, and within it the oldest answer, goes first.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from workers.speculation.matching import match_length, vote
from workers.speculation.protocol import NO_DRAFT, Ask, Draft

NAME = "suffix"
KEY = 3
PLACES_MAX = 16

Place = tuple[int, int]  # answer number, position after the key


@dataclass(slots=True)
class _Memory:
    """Past answers of one tenant and where their runs of tokens ended."""

    answers: OrderedDict[int, list[int]] = field(default_factory=OrderedDict)
    places: dict[tuple[int, ...], list[Place]] = field(default_factory=dict)
    tokens: int = 0


class SuffixProposer:
    runs_model = False

    def __init__(self, *, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._tenants: OrderedDict[str, _Memory] = OrderedDict()
        self._tokens = 0
        self._answers = 0

    @property
    def remembered_tokens(self) -> int:
        return self._tokens

    def propose(self, asks: Sequence[Ask]) -> list[Draft]:
        return [self._propose(ask) for ask in asks]

    def forget(self, key: str) -> None:
        """Nothing is kept of a request before it is over."""

    def remember(self, salt: str, tokens: list[int], prompt_count: int) -> None:
        """Index an answer, with the end of its prompt: equal questions often get equal answers."""
        answer = tokens[max(0, prompt_count - KEY) :]
        if len(answer) <= KEY or len(answer) > self._max_tokens:
            return
        memory = self._tenants.setdefault(salt, _Memory())
        self._tenants.move_to_end(salt)
        self._answers += 1
        memory.answers[self._answers] = answer
        memory.tokens += len(answer)
        self._tokens += len(answer)
        for end in range(KEY, len(answer)):
            key = tuple(answer[end - KEY : end])
            places = memory.places.setdefault(key, [])
            places.append((self._answers, end))
            if len(places) > PLACES_MAX:
                del places[0]
        while self._tokens > self._max_tokens:
            self._drop_oldest()

    def _propose(self, ask: Ask) -> Draft:
        memory = self._tenants.get(ask.salt)
        if memory is None or len(ask.tokens) < KEY:
            return NO_DRAFT
        self._tenants.move_to_end(ask.salt)
        places = memory.places.get(tuple(ask.tokens[-KEY:]), ())
        end = len(ask.tokens)
        matches = [
            (match_length(ask.tokens, end, memory.answers[answer], position), answer, position)
            for answer, position in places
            if answer in memory.answers
        ]
        if not matches:
            return NO_DRAFT
        longest = max(length for length, _, _ in matches)
        paths = [memory.answers[a][p : p + ask.limit] for n, a, p in matches if n == longest]
        return vote(NAME, [path for path in paths if path], longest)

    def _drop_oldest(self) -> None:
        salt, memory = next(iter(self._tenants.items()))
        number, answer = memory.answers.popitem(last=False)
        memory.tokens -= len(answer)
        self._tokens -= len(answer)
        for end in range(KEY, len(answer)):
            key = tuple(answer[end - KEY : end])
            places = memory.places.get(key)
            while places and places[0][0] <= number:
                del places[0]
            if places is not None and not places:
                del memory.places[key]
        if not memory.answers:
            del self._tenants[salt]
