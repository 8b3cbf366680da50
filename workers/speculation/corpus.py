"""What draft heads are trained on: dialogues that the model writes, with its own hidden states.

The model is shown the start of a user's turn and continues it; what it asks, it then answers. So
the heads see what the model says, and nothing has to be downloaded. Dialogues are appended as they
end, to a file of JSON lines and one of raw fp16 features; a run that was cut off goes on.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from workers.engine import Engine
from workers.sampler import SamplingParams
from workers.sequence import GenerationRequest, Sequence
from workers.speculation.heads import WINDOW

PLACE = "\N{OBJECT REPLACEMENT CHARACTER}"
QUESTION_TOKENS_MAX = 60
QUESTION_TOKENS_MIN = 4
ANSWER_TOKENS_MAX = 192
ANSWER_TOKENS_MIN = 16

GoOn = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Tokens of a prompt's end and its answer; one row of features for each token but the last."""

    tokens: list[int]
    prompt_count: int
    features: Tensor  # [tokens - 1, hidden], fp16, after the final norm


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

    def append(self, seed: int, dialogue: Dialogue) -> None:
        with self._features.open("ab") as file:
            file.write(dialogue.features.numpy().tobytes())
        entry = {
            "seed": [seed],
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
            dialogues.append(Dialogue(entry["tokens"], entry["prompt_count"][0], features))
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
            if progress.request_id.startswith("question"):
                self._answer(entry.seed, entry.output)
            elif len(entry.output) >= ANSWER_TOKENS_MIN:
                self._corpus.append(entry.seed, _dialogue(entry))
                lengths.append(len(entry.output))
        return lengths

    def _watch(self, sequence: Sequence, hidden: Tensor) -> None:
        request_id = sequence.request.request_id
        if request_id.startswith("answer"):
            features = self._engine.model.normed(hidden).to(torch.float16)
            self._open[request_id].features.append(features)

    def _ask(self, seed: int) -> None:
        sampling = SamplingParams(temperature=1.0, top_p=0.95, seed=seed, logprobs=0)
        self._add("question", _Open(seed, self._opening), QUESTION_TOKENS_MAX, sampling)

    def _answer(self, seed: int, question: list[int]) -> None:
        engine = self._engine
        text = engine.tokenizer.decode(question).strip()
        if len(question) < QUESTION_TOKENS_MIN or not text:
            return
        prompt = engine.tokenizer.encode_chat([{"role": "user", "content": text}])
        # Half as a careful reader would ask for it, half with the variety of ordinary sampling.
        temperature = 0.0 if seed % 2 else 0.6
        sampling = SamplingParams(temperature=temperature, top_p=0.95, seed=seed, logprobs=0)
        self._add("answer", _Open(seed, prompt), ANSWER_TOKENS_MAX, sampling)

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
                salt=request_id if kind == "answer" else kind,
            )
        )


def opening(engine: Engine) -> list[int]:
    """The rendered start of a conversation, up to where the user's first words stand."""
    tokenizer = engine.tokenizer
    rendered = tokenizer.encode_chat([{"role": "user", "content": PLACE}], continue_final=True)
    return rendered[: len(rendered) - len(tokenizer.encode(PLACE))]


def _dialogue(entry: _Open) -> Dialogue:
    tokens = entry.prompt + entry.output
    first = max(0, len(entry.prompt) - WINDOW)
    features = torch.cat(entry.features)[first : len(tokens) - 1]
    return Dialogue(tokens[first:], len(entry.prompt) - first, features)
