"""What a setting is judged on: texts in slices, and small tasks without and with examples.

Prose and code come from Python's standard library on this machine (its language reference in
`pydoc_data.topics`, and sources of its modules), so they differ a little with Python's version.
"""

import bisect
import csv
import fractions
import heapq
import inspect
import json.decoder
import random
import shlex
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from types import ModuleType
from typing import Any, Final

from workers.text.tokenizer import Tokenizer

TEXT_TOKENS: Final = 512
LONG_TOKENS: Final = 2048
# In a long text only what has this much before it counts.
LONG_CONTEXT: Final = 1024
# Byte-pair vocabularies are in order of merging: a late token is a rare one.
RARE_SHARE: Final = 2 / 3
SHOTS: Final = 8
SUMS: Final = 48
SEED: Final = 20_311

MODULES: Final[tuple[ModuleType, ...]] = (
    bisect,
    csv,
    fractions,
    heapq,
    json.decoder,
    random,
    shlex,
    textwrap,
)
PROSE_TOPICS: Final = (
    "assignment",
    "atom-literals",
    "binary",
    "calls",
    "class",
    "comparisons",
    "debugger",
    "exceptions",
    "import",
    "naming",
)
LONG_TOPICS: Final = ("compound", "specialnames", "typesseq", "formatstrings")


@dataclass(frozen=True, slots=True)
class Passage:
    """Tokens of which the positions in `judged` count: each predicts the token after it."""

    slice: str
    tokens: list[int]
    judged: list[int]


@dataclass(frozen=True, slots=True)
class Item:
    """A question with its answer, the last `answer_tokens`: each must be the most likely one."""

    slice: str
    tokens: list[int]
    answer_tokens: int


def passages(tokenizer: Tokenizer) -> list[Passage]:
    """All texts, cut to length. Rare tokens are a slice across them, made where they are scored."""
    own = _own_texts()
    found = [
        *(_whole("English", tokenizer, topics[name]) for name in PROSE_TOPICS),
        *(_whole("code", tokenizer, inspect.getsource(module)) for module in MODULES),
        *(_whole("non-English", tokenizer, text) for text in own["non_english"]),
        *(_sum_passage(tokenizer, index) for index in range(4)),
    ]
    for name in LONG_TOPICS:
        tokens = tokenizer.encode(topics[name])[:LONG_TOKENS]
        found.append(Passage("long context", tokens, [*range(LONG_CONTEXT, len(tokens) - 1)]))
    return found


def items(tokenizer: Tokenizer) -> list[Item]:
    """Every question twice: alone, and behind eight examples of its task."""
    tasks = {name: _questions(name, pairs) for name, pairs in _own_texts()["tasks"].items()}
    tasks["sums"] = _sums()
    return [
        item
        for questions in tasks.values()
        for index in range(SHOTS, len(questions))
        for item in _both(tokenizer, questions[:SHOTS], questions[index])
    ]


def _both(
    tokenizer: Tokenizer, examples: list[tuple[str, str]], question: tuple[str, str]
) -> list[Item]:
    asked, answer = question
    tail = tokenizer.encode(f" {answer}")
    shown = "".join(f"{other} {right}\n" for other, right in examples)
    return [
        Item("tasks, 0 examples", tokenizer.encode(asked) + tail, len(tail)),
        Item(f"tasks, {SHOTS} examples", tokenizer.encode(shown + asked) + tail, len(tail)),
    ]


def _questions(name: str, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    texts = {
        "capitals": "The capital of {} is",
        "opposites": "The opposite of {} is",
        "plurals": "One {}, two",
    }
    return [(texts[name].format(asked), answer) for asked, answer in pairs]


def _sums() -> list[tuple[str, str]]:
    generator = random.Random(SEED)
    pairs = [(generator.randint(2, 49), generator.randint(2, 49)) for _ in range(SUMS)]
    return [(f"{left} plus {right} equals", str(left + right)) for left, right in pairs]


def _whole(slice_name: str, tokenizer: Tokenizer, text: str) -> Passage:
    tokens = tokenizer.encode(text)[:TEXT_TOKENS]
    return Passage(slice_name, tokens, list(range(len(tokens) - 1)))


def _sum_passage(tokenizer: Tokenizer, index: int) -> Passage:
    """Lines of sums; only the results count, since nobody can guess the numbers before them."""
    generator = random.Random(SEED + index)
    tokens: list[int] = []
    judged: list[int] = []
    for _ in range(SUMS):
        left, right = generator.randint(2, 99), generator.randint(2, 99)
        tokens += tokenizer.encode(f"{left} + {right} =")
        result = tokenizer.encode(f" {left + right}\n")
        judged += range(len(tokens) - 1, len(tokens) - 1 + len(result))
        tokens += result
    return Passage("arithmetic", tokens, judged)


def _own_texts() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "texts.toml").read_text(encoding="utf-8"))
