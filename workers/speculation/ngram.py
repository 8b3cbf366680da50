"""Prompt lookup: what followed where the text ended like this before will follow again."""

from collections.abc import Sequence

from workers.speculation.matching import match_length, vote
from workers.speculation.protocol import NO_DRAFT, Ask, Draft

NAME = "ngram"
# Of the places where an n-gram ended, the latest ones are kept.
PLACES_MAX = 16


class NgramProposer:
    """Remembers where the n-grams of each request's text ended."""

    runs_model = False

    def __init__(self, *, shortest: int, longest: int) -> None:
        self._sizes = range(longest, shortest - 1, -1)
        self._texts: dict[str, _Text] = {}

    def propose(self, asks: Sequence[Ask]) -> list[Draft]:
        """What came after the earlier places that match the text's end longest; they vote."""
        return [self._propose(ask) for ask in asks]

    def forget(self, key: str) -> None:
        self._texts.pop(key, None)

    def _propose(self, ask: Ask) -> Draft:
        text = self._texts.get(ask.key)
        if text is None:
            text = self._texts[ask.key] = _Text(self._sizes)
        tokens, end = ask.tokens, len(ask.tokens)
        # The latest comes first: it is preferred where votes tie.
        matches = [
            (match_length(tokens, end, tokens, p), p)
            for p in reversed(text.find(tokens, ask.guessed))
        ]
        if not matches:
            return NO_DRAFT
        longest = max(length for length, _ in matches)
        paths = [_copy(tokens, p, ask.limit) for length, p in matches if length == longest]
        return vote(NAME, paths, longest)


class _Text:
    def __init__(self, sizes: range) -> None:
        self._sizes = sizes
        self._places: dict[tuple[int, ...], list[int]] = {}
        self._indexed_to = 0

    def find(self, tokens: Sequence[int], guessed: int) -> Sequence[int]:
        """Positions after earlier places of the longest n-gram that ends the text, if any.

        The last `guessed` tokens are looked up and not remembered.
        """
        self._index(tokens, len(tokens) - guessed)
        end = len(tokens)
        for size in self._sizes:
            if size < end:
                places = self._places.get(tuple(tokens[end - size :]))
                if places is not None:
                    return places
        return ()

    def _index(self, tokens: Sequence[int], known: int) -> None:
        """Index n-grams that end before the last known token: a text's own end must not match."""
        for end in range(self._indexed_to + 1, known):
            for size in self._sizes:
                if size <= end:
                    places = self._places.setdefault(tuple(tokens[end - size : end]), [])
                    places.append(end)
                    if len(places) > PLACES_MAX:
                        del places[0]
        self._indexed_to = max(self._indexed_to, known - 1)


def _copy(tokens: Sequence[int], position: int, limit: int) -> list[int]:
    """`limit` tokens from `position`; past the end of the text a repetition goes on repeating."""
    copied = list(tokens[position : position + limit])
    while len(copied) < limit:
        copied.append(copied[len(copied) - (len(tokens) - position)])
    return copied
