"""The model's own phrases: what it mostly says after the last one to three tokens.

The table is counted over texts that the model wrote by itself (`python -m
workers.training.train_draft count`). It holds nothing of any request, so all tenants share it; a
guess is a look-up.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, Protocol
from zipfile import BadZipFile

import numpy as np

from workers.speculation.protocol import NO_DRAFT, Ask, Draft, Evidence
from workers.text.tokenizer import Tokenizer

NAME = "phrases"
ORDER_MAX = 3
DEPTH_MAX = 4
# What stands in a phrase of fewer tokens, in front.
NOTHING = -1
# A phrase is kept if it was seen so often, by the number of its tokens, and mostly went on so.
SEEN_MIN = {1: 5, 2: 3, 3: 2}
TENTHS_MIN = 2
TENTHS_BITS = 4
# More than any vocabulary needs; three of them are a small number for Python.
TOKEN_BITS = 20

Phrase = tuple[int, ...]


class UnusablePhrases(RuntimeError):
    """The file is no table of phrases, or one of another vocabulary."""


class Next(NamedTuple):
    """What follows a phrase, in how many tenths of the cases."""

    token: int
    tenths: int


class Known(Protocol):
    def get(self, phrase: Phrase, /) -> Next | None: ...


class PhraseTable:
    """Phrases and what follows them, each packed into one number: a quarter of a dict's memory."""

    def __init__(self, phrases: Iterable[tuple[Phrase, Next]]) -> None:
        self._nexts = {
            _packed(phrase): known.token << TENTHS_BITS | known.tenths for phrase, known in phrases
        }

    def __len__(self) -> int:
        return len(self._nexts)

    def __iter__(self) -> Iterator[tuple[Phrase, Next]]:
        return ((_unpacked(number), _next(packed)) for number, packed in self._nexts.items())

    def get(self, phrase: Phrase, /) -> Next | None:
        packed = self._nexts.get(_packed(phrase))
        return None if packed is None else _next(packed)


def _packed(phrase: Phrase) -> int:
    number = 0
    for token in phrase:
        number = number << TOKEN_BITS | token + 1
    return number


def _unpacked(number: int) -> Phrase:
    tokens: list[int] = []
    while number:
        tokens.append((number & (1 << TOKEN_BITS) - 1) - 1)
        number >>= TOKEN_BITS
    return tuple(reversed(tokens))


def _next(packed: int) -> Next:
    return Next(packed >> TENTHS_BITS, packed & (1 << TENTHS_BITS) - 1)


class PhraseProposer:
    runs_model = False

    def __init__(self, table: Known) -> None:
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


def load_phrases(path: Path, tokenizer: Tokenizer) -> PhraseTable:
    """Raises `UnusablePhrases`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            phrases, nexts = file["phrases"], file["nexts"]
            vocabulary = file["vocabulary"].tobytes()
        # Row by row: as lists, all of them would take more memory than the table.
        table = PhraseTable(
            (tuple(token for token in phrase.tolist() if token != NOTHING), Next(*known.tolist()))
            for phrase, known in zip(phrases, nexts, strict=True)
        )
    except (OSError, TypeError, ValueError, KeyError, BadZipFile) as error:
        raise UnusablePhrases(f"{path} is not a table of phrases: {error}") from error
    if vocabulary != _fingerprint(tokenizer):
        raise UnusablePhrases(f"{path} was counted with another vocabulary than this model's")
    return table


def _fingerprint(tokenizer: Tokenizer) -> bytes:
    pieces = tokenizer.pieces(range(tokenizer.vocab_size))
    return blake2b("\n".join(pieces).encode(), digest_size=16).digest()
