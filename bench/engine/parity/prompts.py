"""The two hundred prompts of the parity matrix, and how they are dealt out to batches.

They are the bench's 55 texts whole as chats, cut to their first half as chats, and two stretches of
each as bare text: lengths from a few tokens to some two hundred, with and without a template.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.engine.prompts import CLASSES, HELD_OUT
from workers.text.tokenizer import Tokenizer

COUNT: Final = 200
# Three times every size, and what is left of two hundred.
SIZES: Final = (1, 2, 4, 8, 16, 32) * 3 + (8, 2, 1)
# The batches of the second round and the last eight run in a pool that is too small for them.
TIGHT: Final = frozenset((*range(6, 12), 18))

Encode = Callable[[Tokenizer, list[str]], list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Prompts, by their numbers, that are sent at once."""

    index: int
    prompts: tuple[int, ...]
    tight: bool


def two_hundred(tokenizer: Tokenizer) -> list[list[int]]:
    """Token ids of all prompts, always the same; no two are equal."""
    pool = (*HELD_OUT.values(), *CLASSES.values())
    texts = [text.split(" ") for prompts in pool for text in prompts]
    forms: tuple[Encode, ...] = (_chat, _half_chat, _beginning, _end)
    prompts = [form(tokenizer, words) for form in forms for words in texts]
    return prompts[:COUNT]


def dealt(count: int, *, seed: int, sizes: tuple[int, ...] = SIZES) -> list[Batch]:
    """All `count` prompts in batches of `sizes`; another seed puts them into other company."""
    assert sum(sizes) == count
    order = random.Random(seed).sample(range(count), count)
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    return [
        Batch(index=index, prompts=tuple(order[end - size : end]), tight=index in TIGHT)
        for index, (size, end) in enumerate(zip(sizes, ends, strict=True))
    ]


def _chat(tokenizer: Tokenizer, words: list[str]) -> list[int]:
    return tokenizer.encode_chat([{"role": "user", "content": " ".join(words)}])


def _half_chat(tokenizer: Tokenizer, words: list[str]) -> list[int]:
    return _chat(tokenizer, words[: len(words) // 2])


def _beginning(tokenizer: Tokenizer, words: list[str]) -> list[int]:
    return tokenizer.encode(" ".join(words[: len(words) // 3 + 1]))


def _end(tokenizer: Tokenizer, words: list[str]) -> list[int]:
    return tokenizer.encode(" ".join(words[-len(words) // 3 :]))
