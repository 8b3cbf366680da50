"""The model's own phrases: what it mostly says after the last one to three tokens.

The table is counted over texts that the model wrote by itself (`python -m workers.train_draft
count`). It holds nothing of any request, so all tenants share it; a guess is a look-up.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from workers.speculation.protocol import NO_DRAFT, Ask, Draft, Evidence
from workers.tokenizer import Tokenizer

NAME = "phrases"
ORDER_MAX = 3
DEPTH_MAX = 4
# What stands in a phrase of fewer tokens, in front.
NOTHING = -1
# A phrase is kept if it was seen so often, by the number of its tokens, and mostly went on so.
SEEN_MIN = {1: 5, 2: 3, 3: 2}
TENTHS_MIN = 2

Phrase = tuple[int, ...]


class UnusablePhrases(RuntimeError):
    """The file is no table of phrases, or one of another vocabulary."""


class Next(NamedTuple):
    """What follows a phrase, in how many tenths of the cases."""

    token: int
    tenths: int


class PhraseProposer:
    runs_model = False

    def __init__(self, table: dict[Phrase, Next]) -> None:
        self._table = table

    def propose(self, asks: Sequence[Ask]) -> list[Draft]:
        """A few tokens on, each behind the longest known phrase."""
        return [self._propose(ask) for ask in asks]

    def forget(self, key: str) -> None:
        """Nothing is kept of a request."""

    def _propose(self, ask: Ask) -> Draft:
        ending = tuple(ask.tokens[-ORDER_MAX:])
        tokens: list[int] = []
        evidence: list[Evidence] = []
        while len(tokens) < min(DEPTH_MAX, ask.limit):
            known = self._look_up(ending)
            if known is None:
                break
            tokens.append(known.token)
            evidence.append(Evidence(NAME, known.tenths, depth=0))
            ending = (*ending[1 - ORDER_MAX :], known.token)
        return Draft(tokens, evidence) if tokens else NO_DRAFT

    def _look_up(self, ending: Phrase) -> Next | None:
        for start in range(len(ending)):
            known = self._table.get(ending[start:])
            if known is not None:
                return known
        return None


def count_phrases(texts: Iterable[Sequence[int]]) -> dict[Phrase, Next]:
    """The phrases of these texts that are frequent enough and mostly go on in the same way."""
    counts: dict[Phrase, Counter[int]] = defaultdict(Counter)
    for text in texts:
        for end in range(1, len(text)):
            for size in range(1, min(ORDER_MAX, end) + 1):
                counts[tuple(text[end - size : end])][text[end]] += 1
    table = {}
    for phrase, nexts in counts.items():
        [(token, times)] = nexts.most_common(1)
        # Half a case less: what was seen twice and went on alike twice is not certain.
        tenths = int(10 * (times - 0.5) / (nexts.total() + 1))
        if times >= SEEN_MIN[len(phrase)] and tenths >= TENTHS_MIN:
            table[phrase] = Next(token, tenths)
    return table


def save_phrases(path: Path, table: dict[Phrase, Next], tokenizer: Tokenizer) -> None:
    ordered = sorted(table)
    padded = [(NOTHING,) * (ORDER_MAX - len(phrase)) + phrase for phrase in ordered]
    with path.open("wb") as file:
        np.savez_compressed(
            file,
            phrases=np.array(padded, np.int32).reshape(-1, ORDER_MAX),
            nexts=np.array([table[phrase] for phrase in ordered], np.int32).reshape(-1, 2),
            vocabulary=np.frombuffer(_fingerprint(tokenizer), np.uint8),
        )


def load_phrases(path: Path, tokenizer: Tokenizer) -> dict[Phrase, Next]:
    """Raises `UnusablePhrases`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            phrases, nexts = file["phrases"].tolist(), file["nexts"].tolist()
            vocabulary = file["vocabulary"].tobytes()
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise UnusablePhrases(f"{path} is not a table of phrases: {error}") from error
    if vocabulary != _fingerprint(tokenizer):
        raise UnusablePhrases(f"{path} was counted with another vocabulary than this model's")
    return {
        tuple(token for token in phrase if token != NOTHING): Next(*known)
        for phrase, known in zip(phrases, nexts, strict=True)
    }


def _fingerprint(tokenizer: Tokenizer) -> bytes:
    pieces = tokenizer.pieces(range(tokenizer.vocab_size))
    return blake2b("\n".join(pieces).encode(), digest_size=16).digest()
