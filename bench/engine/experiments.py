"""What is compared with what: the sides of each experiment and the jobs they all get.

All sides of an experiment answer the same token ids with the same number of tokens, greedily, on
the same number of threads. Prompts are the held-out ones; one job is one round.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.engine.prompts import COPY_HEAVY, HELD_OUT
from bench.engine.side import Side
from bench.engine.wire import Settings
from workers.config import DEFAULT_MODEL_DIR, LOOKUPS, MODEL_PROPOSERS
from workers.convert import packaged_gguf
from workers.text.tokenizer import Tokenizer

THREADS: Final = 2
ONE_STREAM_TOKENS: Final = 64
# A summary, an extraction or an edit is longer: where answers may end by themselves, those to the
# tuning prompts' copying work take 60 tokens at least, and five of nine more than 128.
COPY_TOKENS: Final = 128
BATCH: Final = 16
BATCH_TOKENS: Final = 32
CROWD: Final = 64
CROWD_TOKENS: Final = 24
# Of the crowd, `generate` answers this part and its time is scaled: one by one, times only add up.
SEQUENTIAL_SHARE: Final = 1 / 8
SWEEP: Final = (1, 2, 4, 8, 16, 32, 64)
LLAMA_SLOT_TOKENS: Final = 1024

# The best of the settings tried on two cores; see `bench/engine/README.md`.
BATCHING: Final[Settings] = {"page_size": 16, "num_blocks": 1200, "max_batch_tokens": 512}


@dataclass(frozen=True, slots=True)
class Task:
    """Prompts that are sent at once, and the class they belong to."""

    group: str
    prompts: list[list[int]]
    output_tokens: int
    shared_salt: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """Sides that answer the same tasks in turn. `minutes` is about what all `rounds` take."""

    key: str
    title: str
    sides: tuple[Side, ...]
    tasks: Callable[[Tokenizer], list[Task]]
    rounds: int
    minutes: float


def ours(name: str, **changes: object) -> Side:
    """Our engine; `int8` and proposers (`ngram`, `phrases+ngram`) in the name are switched on."""
    words = name.split()
    known = {*LOOKUPS, *MODEL_PROPOSERS}
    drafting = [word for word in words if set(word.split("+")) <= known]
    settings = {
        "model_dir": str(DEFAULT_MODEL_DIR),
        "threads": THREADS,
        "quantisation": "int8" if "int8" in words else "none",
        "speculation": drafting[0] if drafting else "off",
        **changes,
    }
    return Side(name=name, module="tokenhouse", settings=settings)


def generate(*, share: float = 1.0) -> Side:
    settings = {"model_dir": str(DEFAULT_MODEL_DIR), "threads": THREADS}
    return Side(name="generate", module="transformers", settings=settings, share=share)


def continuous() -> Side:
    settings = {"model_dir": str(DEFAULT_MODEL_DIR), "threads": THREADS, "batching": BATCHING}
    return Side(name="transformers batching", module="transformers", settings=settings)


def llamacpp(name: str, *, gguf: Path, slots: int = 1, speculation: str | None = None) -> Side:
    settings = {
        "gguf": str(gguf),
        "threads": THREADS,
        "slots": slots,
        "context": LLAMA_SLOT_TOKENS,
        "flash_attention": -1,
        "speculation": speculation,
    }
    return Side(name=name, module="llamacpp", settings=settings)


def experiments() -> tuple[Experiment, ...]:
    gguf = packaged_gguf()
    return (
        Experiment(
            key="one-stream",
            title=f"one stream, {ONE_STREAM_TOKENS} tokens, of copying work {COPY_TOKENS}",
            sides=(
                generate(),
                llamacpp("llama.cpp", gguf=gguf),
                llamacpp("llama.cpp ngram", gguf=gguf, speculation="ngram_simple"),
                *map(ours, ("fp32", "fp32 ngram", "fp32 phrases+ngram")),
                *map(ours, ("int8", "int8 ngram", "int8 phrases+ngram", "int8 suffix+ngram")),
                *map(ours, ("fp32 phrases+ngram+eagle", "int8 phrases+ngram+eagle")),
            ),
            tasks=one_stream_tasks,
            rounds=40,
            minutes=9,
        ),
        Experiment(
            key="batch",
            title=f"{BATCH} at once, {BATCH_TOKENS} tokens each",
            sides=(
                continuous(),
                llamacpp("llama.cpp", gguf=gguf, slots=BATCH),
                *(
                    ours(name, token_budget=256)
                    for name in ("fp32", "int8", "int8 ngram", "int8 phrases+ngram")
                ),
            ),
            tasks=batch_tasks,
            rounds=20,
            minutes=8,
        ),
        Experiment(
            key="crowd",
            title=f"{CROWD} at once behind one system prompt, {CROWD_TOKENS} tokens each",
            sides=(
                generate(share=SEQUENTIAL_SHARE),
                *(
                    ours(name, token_budget=256, max_running_requests=CROWD)
                    for name in ("fp32", "int8")
                ),
            ),
            tasks=crowd_tasks,
            rounds=20,
            minutes=8,
        ),
        Experiment(
            key="concurrency",
            title=f"throughput at growing concurrency, {BATCH_TOKENS} tokens each",
            sides=(
                llamacpp("llama.cpp", gguf=gguf, slots=CROWD),
                *(
                    ours(name, token_budget=256, max_running_requests=CROWD)
                    for name in ("fp32", "int8")
                ),
            ),
            tasks=sweep_tasks,
            rounds=2 * len(SWEEP),
            minutes=4,
        ),
    )


def one_stream_tasks(tokenizer: Tokenizer) -> list[Task]:
    """One prompt each; the classes take turns, so that a short run has seen them all."""
    rows = zip(*HELD_OUT.values(), strict=True)
    return [
        Task(
            name,
            [encode(tokenizer, prompt)],
            COPY_TOKENS if name in COPY_HEAVY else ONE_STREAM_TOKENS,
        )
        for row in rows
        for name, prompt in zip(HELD_OUT, row, strict=True)
    ]


def batch_tasks(tokenizer: Tokenizer) -> list[Task]:
    return [
        Task("mixed", pick(tokenizer, first=BATCH * index, count=BATCH), BATCH_TOKENS)
        for index in range(5)
    ]


def sweep_tasks(tokenizer: Tokenizer) -> list[Task]:
    return [
        Task(str(count), pick(tokenizer, first=3 * count, count=count), BATCH_TOKENS)
        for count in SWEEP
    ]


def crowd_tasks(tokenizer: Tokenizer) -> list[Task]:
    """The users of one assistant: the same long system prompt, questions of their own."""
    questions = [*HELD_OUT["chat"], *HELD_OUT["question"]]
    prompts = [
        encode(tokenizer, f"{questions[index % len(questions)]} ({index})", system=SYSTEM_PROMPT)
        for index in range(CROWD)
    ]
    rotation = int(CROWD * SEQUENTIAL_SHARE)
    return [
        Task("crowd", prompts[start:] + prompts[:start], CROWD_TOKENS, shared_salt=True)
        for start in range(0, CROWD, rotation)
    ]


def pick(tokenizer: Tokenizer, *, first: int, count: int) -> list[list[int]]:
    """`count` prompts of all classes in turn, starting at the `first` of them."""
    mixed = [prompt for row in zip(*HELD_OUT.values(), strict=True) for prompt in row]
    return [encode(tokenizer, mixed[index % len(mixed)]) for index in range(first, first + count)]


def encode(tokenizer: Tokenizer, prompt: str, *, system: str | None = None) -> list[int]:
    messages = [{"role": "system", "content": system}] if system else []
    return tokenizer.encode_chat([*messages, {"role": "user", "content": prompt}])


def chosen(keys: Sequence[str] | None) -> tuple[Experiment, ...]:
    """The experiments with these keys, or all. Raises ValueError for a key that is none."""
    known = {experiment.key: experiment for experiment in experiments()}
    unknown = [key for key in keys or () if key not in known]
    if unknown:
        raise ValueError(f"no experiment {', '.join(unknown)}; there are {', '.join(known)}")
    return tuple(known[key] for key in keys or known)


def with_sides(experiment: Experiment, names: Sequence[str]) -> Experiment:
    """The experiment with these of its sides only. Raises ValueError if it has none of them."""
    sides = tuple(side for side in experiment.sides if side.name in names)
    if not sides:
        known = ", ".join(side.name for side in experiment.sides)
        raise ValueError(f"{experiment.key} has no side {', '.join(names)}; it has {known}")
    return replace(experiment, sides=sides)


SYSTEM_PROMPT: Final = (
    "You are the assistant of the city of Harlow. You answer questions of residents about the "
    "library, the swimming pools, waste collection, parking permits, schools and building "
    "permits. Answer in at most five sentences, in plain words and in a friendly tone. If a "
    "question concerns a fee, name the amount and the date from which it holds, and add that the "
    "fees are published in the city's gazette. If a question concerns opening hours, name them "
    "for weekdays and for the weekend, and mention public holidays. Never give legal or medical "
    "advice: name the office that can help, with its telephone number. If you do not know an "
    "answer, say so and point to the information desk in the town hall, which is open from eight "
    "to six on weekdays. Do not ask for personal data such as names, addresses or numbers of "
    "identity cards, and do not repeat such data if a resident has written them. Questions that "
    "have nothing to do with the city may be answered briefly, if they are harmless. Write no "
    "lists, no headings and no links."
)
