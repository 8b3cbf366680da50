"""What lookups share: how long a match is, what follows it, and what kind of evidence that is.

A match is a place in known text that ends as a request's text does now. The places that match
longest vote for each next token.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cache

from workers.speculation.protocol import Draft, Evidence

MATCH_MAX = 32
# Beyond every strength of a single match: places that agree are evidence of another kind.
AGREED = 16
SHARES = 4
# How often a majority is right depends on how far ahead it guesses.
DEPTHS = 4


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


def vote(name: str, paths: list[list[int]], length: int) -> Draft:
    """What follows the places that all match `length` tokens, the one to prefer first.

    The most frequent next token is taken, and paths that said otherwise have no say any more.
    """
    tokens: list[int] = []
    evidence: list[Evidence] = []
    while len(paths) > 1:
        depth = len(tokens)
        nexts = Counter(path[depth] for path in paths)
        token, votes = nexts.most_common(1)[0]
        share = votes * SHARES // len(paths)
        tokens.append(token)
        evidence.append(Evidence(name, AGREED + share, min(depth, DEPTHS - 1)))
        paths = [path for path in paths if len(path) > depth + 1 and path[depth] == token]
    for path in paths:
        alone = lookup_evidence(name, length, len(path))
        evidence += alone[len(tokens) :]
        tokens += path[len(tokens) :]
    return Draft(tokens, evidence)


@cache
def _kinds(name: str) -> list[Evidence]:
    """By the length of the match, from 1 to `MATCH_MAX`."""
    return [Evidence(name, match_strength(n), depth=0) for n in range(1, MATCH_MAX + 1)]


def match_strength(length: int) -> int:
    """Up to 4 tokens each length is a kind of its own, then each doubling."""
    return length if length <= 4 else length.bit_length() + 2
