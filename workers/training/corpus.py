"""What draft heads are trained on: dialogues that the model writes, with its own hidden states.

The model is shown the start of a user's turn and continues it; what it asks, it then answers; and
every answer is given back to it with something to do: to shorten it, to copy out of it, to change a
detail. So the heads see what the model says, also about a text at hand, and nothing has to be
downloaded. Dialogues are appended as they end, to a file of JSON lines and one of raw fp16
features; a run that was cut off goes on.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from workers.engine.engine import Engine
from workers.engine.sequence import GenerationRequest, Sequence
from workers.model.sampler import SamplingParams

PLACE = "\N{OBJECT REPLACEMENT CHARACTER}"
QUESTION_TOKENS_MAX = 60
QUESTION_TOKENS_MIN = 4
ANSWER_TOKENS_MAX = 192
ANSWER_TOKENS_MIN = 16

# How questions begin, by turns: now and then as the model likes, else as people do.
BEGINNINGS = (
    "",
    "Write a Python function that",
    "Explain why",
    "Write a short report about",
    "",
    "What should I say to",
    "Give me five tips for",
    "Write a class in Python for",
    "How does",
    "",
    "Write a letter to",
    "Make a table of",
    "My friend",
    "What is the difference between",
    "Write the minutes of a meeting about",
    "",
    "Write a program which",
    "Can you recommend",
    "Describe how",
    "Give an example of a log file of",
    "I feel",
    "",
    "Write a news article about",
    "Tell me a story about",
    "Write a JSON document with",
    "How can I",
    "Who was",
    "",
    "Write instructions for",
    "List the names and addresses of",
    "What happens when",
)
# What is asked about an answer, by turns.
TASKS = (
    "Summarize this in two sentences:\n{}",
    "Write this again and correct every mistake:\n{}",
    "List the most important points of the text below.\n\n{}",
    "{}\n\nReplace one word by a better one and show everything.",
    "Copy the names and numbers out of this, one on each line:\n{}",
    "Turn this into JSON:\n{}",
    "Make this shorter:\n\n{}",
    "{}\n\nRepeat the text above exactly.",
    "What does this say? Answer briefly.\n{}",
    "Change a name in the following and return all of it:\n{}",
    "Write each sentence of this on a line of its own:\n\n{}",
    "Make a table from this text:\n{}",
)
# Kinds of requests whose tokens and features are kept.
KEPT = ("answer", "task")

GoOn = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Tokens of a prompt and its answer; one row of features for each token but the last.

    What is done with an answer has its seed.
    """

    tokens: list[int]
    prompt_count: int
    features: Tensor  # [tokens - 1, hidden], fp16, after the final norm
    seed: int


@dataclass(slots=True)
class _Open:
    seed: int
    prompt: list[int]
    output: list[int] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)


class Corpus:
    """The two files. Each line says how many tokens and thus feature rows its dialogue has."""

    def __init__(self, folder: Path, *, hidden_size: int) -> None:
        self._lines = folder / "dialogues.jsonl"
        self._features = folder / "features.f16"
        self._width = hidden_size
        folder.mkdir(parents=True, exist_ok=True)

    def entries(self) -> Iterator[dict[str, list[int]]]:
        """Whole lines; a last one that was cut off is left out."""
        if self._lines.is_file():
            with self._lines.open() as lines:
                yield from (json.loads(line) for line in lines if line.endswith("\n"))

    def repair(self) -> int:
        """Cut off what an interrupted run left half written; the first seed that is not used."""
        rows, seed, kept = 0, 0, ""
        for entry in self.entries():
            rows += len(entry["tokens"]) - 1
            seed = max(seed, entry["seed"][0] + 1)
            kept += json.dumps(entry) + "\n"
        self._lines.write_text(kept)
        with self._features.open("ab") as file:
            file.truncate(rows * self._width * 2)
        return seed

    def append(self, dialogue: Dialogue) -> None:
        with self._features.open("ab") as file:
            file.write(dialogue.features.numpy().tobytes())
        entry = {
            "seed": [dialogue.seed],
            "tokens": dialogue.tokens,
            "prompt_count": [dialogue.prompt_count],
        }
        with self._lines.open("a") as lines:
            lines.write(json.dumps(entry) + "\n")

    def read(self) -> list[Dialogue]:
        """All dialogues; features stay in the file until they are used."""
        row_bytes = 2 * self._width
        rows = self._features.stat().st_size // row_bytes if self._features.is_file() else 0
        if not rows:
            return []
        mapped = np.memmap(self._features, np.float16, mode="c", shape=(rows, self._width))
        dialogues: list[Dialogue] = []
        row = 0
        for entry in self.entries():
            stop = row + len(entry["tokens"]) - 1
            if stop > len(mapped):
                break
            features = torch.from_numpy(mapped[row:stop])
            [count], [seed] = entry["prompt_count"], entry["seed"]
            dialogues.append(Dialogue(entry["tokens"], count, features, seed))
            row = stop
        return dialogues


class Writer:
    """Keeps the engine full of questions and answers until told to stop."""

    def __init__(self, engine: Engine, corpus: Corpus) -> None:
        self._engine = engine
        self._corpus = corpus
        self._opening = opening(engine)
        self._open: dict[str, _Open] = {}
        engine.watchers.append(self._watch)

    def run(self, *, go_on: GoOn) -> Iterator[int]:
        """Write dialogues and yield the length of each answer; open ones are dropped at the end."""
        seed = self._corpus.repair()
        while go_on():
            while len(self._open) < self._engine.config.max_running_requests:
                self._ask(seed)
                seed += 1
            yield from self._step()
        for request_id in self._open:
            self._engine.cancel(request_id)
        self._open.clear()

    def _step(self) -> list[int]:
        lengths: list[int] = []
        for progress in self._engine.step():
            entry = self._open[progress.request_id]
            entry.output += [logprob.token for logprob in progress.logprobs]
            if progress.finish_reason is None:
                continue
            del self._open[progress.request_id]
            kind = progress.request_id.partition("-")[0]
            if kind == "question":
                self._answer(entry.seed, entry.prompt[len(self._opening) :] + entry.output)
                continue
            if len(entry.output) < ANSWER_TOKENS_MIN:
                continue
            self._corpus.append(_dialogue(entry))
            lengths.append(len(entry.output))
            if kind == "answer":
                self._give_task(entry.seed, entry.output)
        return lengths

    def _watch(self, sequence: Sequence, hidden: Tensor) -> None:
        request_id = sequence.request.request_id
        if request_id.startswith(KEPT):
            features = self._engine.model.normed(hidden).to(torch.float16)
            self._open[request_id].features.append(features)

    def _ask(self, seed: int) -> None:
        sampling = SamplingParams(temperature=1.0, top_p=0.95, seed=seed, logprobs=0)
        beginning = self._engine.tokenizer.encode(BEGINNINGS[seed % len(BEGINNINGS)])
        entry = _Open(seed, self._opening + beginning)
        self._add("question", entry, QUESTION_TOKENS_MAX, sampling)

    def _answer(self, seed: int, question: list[int]) -> None:
        text = self._engine.tokenizer.decode(question).strip()
        if len(question) >= QUESTION_TOKENS_MIN and text:
            self._say("answer", seed, text)

    def _give_task(self, seed: int, answer: list[int]) -> None:
        text = self._engine.tokenizer.decode(answer).strip()
        self._say("task", seed, TASKS[seed // len(BEGINNINGS) % len(TASKS)].format(text))

    def _say(self, kind: str, seed: int, text: str) -> None:
        prompt = self._engine.tokenizer.encode_chat([{"role": "user", "content": text}])
        # Half as a careful reader would ask for it, half with the variety of ordinary sampling.
        temperature = 0.0 if seed % 2 else 0.6
        sampling = SamplingParams(temperature=temperature, top_p=0.95, seed=seed, logprobs=0)
        self._add(kind, _Open(seed, prompt), ANSWER_TOKENS_MAX, sampling)

    def _add(self, kind: str, entry: _Open, limit: int, sampling: SamplingParams) -> None:
        request_id = f"{kind}-{entry.seed}"
        self._open[request_id] = entry
        self._engine.add(
            GenerationRequest(
                request_id=request_id,
                prompt=entry.prompt,
                max_tokens=limit,
                sampling=sampling,
                # Hidden states of what comes from the prefix cache are not there to be recorded.
                salt=request_id if kind in KEPT else kind,
            )
        )


def opening(engine: Engine) -> list[int]:
    """The rendered start of a conversation, up to where the user's first words stand."""
    tokenizer = engine.tokenizer
    rendered = tokenizer.encode_chat([{"role": "user", "content": PLACE}], continue_final=True)
    return rendered[: len(rendered) - len(tokenizer.encode(PLACE))]


def _dialogue(entry: _Open) -> Dialogue:
    tokens = entry.prompt + entry.output
    features = torch.cat(entry.features)[: len(tokens) - 1]
    return Dialogue(tokens, len(entry.prompt), features, entry.seed)
