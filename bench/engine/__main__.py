"""`python -m bench.engine`: what prompt lookup and batching give, and transformers beside it.

Every comparison is interleaved in one process on one thread and counts the thread's CPU time, so
that a busy neighbour slows both sides alike; each figure is the best of its repeats. Prints
Markdown tables. Texts of the two modes are compared as well: they must be the same.
"""

import argparse
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from bench.engine.prompts import CLASSES
from workers.config import DEFAULT_MODEL_DIR, EngineConfig, Speculation
from workers.engine import Engine
from workers.sampler import SamplingParams
from workers.sequence import GenerationRequest
from workers.server.calibration import cpu_model

OUTPUT_TOKENS = 64
ONE_STREAM_TOKENS = 48
BATCH = 8


@dataclass
class Result:
    """Best CPU seconds of a group of requests and what they gave."""

    seconds: float = float("inf")
    tokens: int = 0
    steps: int = 0
    drafted: int = 0
    accepted: int = 0
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


class Runner:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._runs = 0

    def run(self, prompts: list[str], *, max_tokens: int) -> Result:
        """All prompts at once, greedy, nothing of them in the prefix cache."""
        self._runs += 1
        result = Result()
        for index, text in enumerate(prompts):
            self._engine.add(self._request(index, text, max_tokens=max_tokens))
        started = time.thread_time()
        while self._engine.has_work:
            for progress in self._engine.step():
                earlier = result.texts.get(progress.request_id, "")
                result.texts[progress.request_id] = earlier + progress.text
                if progress.usage is not None:
                    result.tokens += progress.usage.completion_tokens
                    result.steps += progress.usage.steps
                    result.drafted += progress.usage.drafted
                    result.accepted += progress.usage.accepted
        result.seconds = time.thread_time() - started
        return result

    def _request(self, index: int, text: str, *, max_tokens: int) -> GenerationRequest:
        return GenerationRequest(
            request_id=str(index),
            prompt=self._engine.tokenizer.encode_chat([{"role": "user", "content": text}]),
            max_tokens=max_tokens,
            sampling=SamplingParams(temperature=0.0),
            salt=f"{self._runs}-{index}",
        )


def best(results: list[Result]) -> Result:
    return min(results, key=lambda result: result.seconds)


def compare(plain: Runner, drafted: Runner, groups: list[list[str]], repeats: int) -> list[Result]:
    """Plain and drafted results, summed over groups, each the best of its interleaved repeats."""
    sums = [Result(seconds=0.0), Result(seconds=0.0)]
    for group in groups:
        runs: list[list[Result]] = [[], []]
        for _ in range(repeats):
            for side, runner in enumerate((plain, drafted)):
                runs[side].append(runner.run(group, max_tokens=OUTPUT_TOKENS))
        for total, side_runs in zip(sums, runs, strict=True):
            _add(total, best(side_runs))
    return sums


def _add(total: Result, result: Result) -> None:
    total.seconds += result.seconds
    total.tokens += result.tokens
    total.steps += result.steps
    total.drafted += result.drafted
    total.accepted += result.accepted
    offset = len(total.texts)
    total.texts |= {f"{offset}-{key}": text for key, text in result.texts.items()}


def row(name: str, plain: Result, drafted: Result) -> str:
    rate = drafted.accepted / drafted.drafted if drafted.drafted else 0.0
    return (
        f"| {name} | {plain.tokens_per_second:.1f} | {drafted.tokens_per_second:.1f} "
        f"| {drafted.tokens_per_second / plain.tokens_per_second:.2f} "
        f"| {drafted.tokens / drafted.steps:.2f} | {rate:.2f} "
        f"| {'same' if plain.texts == drafted.texts else 'differ'} |"
    )


def write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def speculation_tables(plain: Runner, drafted: Runner, repeats: int) -> None:
    head = "| tok/s plain | tok/s ngram | ratio | tokens per step | accepted | texts |"
    write(f"\n| one stream {head}\n|---|---|---|---|---|---|---|")
    for name, prompts in CLASSES.items():
        groups = [[prompt] for prompt in prompts]
        write(row(name, *compare(plain, drafted, groups, repeats)))
    write(f"\n| {BATCH} at once {head}\n|---|---|---|---|---|---|---|")
    for name, prompts in CLASSES.items():
        group = [prompts[index % len(prompts)] for index in range(BATCH)]
        write(row(name, *compare(plain, drafted, [group], repeats)))
    mixed = [prompts[index % 3] for index in range(2) for prompts in CLASSES.values()][:BATCH]
    write(row("all classes mixed", *compare(plain, drafted, [mixed], repeats)))


def one_stream_table(model_dir: Path, plain: Runner, drafted: Runner, repeats: int) -> None:
    reference = Reference(model_dir, plain)
    sides = {"transformers generate": reference, "plain": plain, "ngram": drafted}
    prompts = [prompts[0] for prompts in CLASSES.values()]
    totals = {name: Result(seconds=0.0) for name in sides}
    for prompt in prompts:
        runs: dict[str, list[Result]] = {name: [] for name in sides}
        for _ in range(repeats):
            for name, side in sides.items():
                runs[name].append(side.run([prompt], max_tokens=ONE_STREAM_TOKENS))
        for name, total in totals.items():
            _add(total, best(runs[name]))
    write("\n| one stream, first prompt of each class | tok/s |\n|---|---|")
    for name, total in totals.items():
        write(f"| {name} | {total.tokens_per_second:.1f} |")


class Reference(Runner):
    """transformers' own generate on the same prompts."""

    def __init__(self, model_dir: Path, runner: Runner) -> None:
        super().__init__(runner._engine)
        self._model = AutoModelForCausalLM.from_pretrained(model_dir, local_files_only=True)

    def run(self, prompts: list[str], *, max_tokens: int) -> Result:
        prompt = self._request(0, prompts[0], max_tokens=max_tokens).prompt
        started = time.thread_time()
        with torch.inference_mode():
            output = self._model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
                max_new_tokens=max_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
            )
        seconds = time.thread_time() - started
        tokens = output.shape[1] - len(prompt)
        return Result(seconds=seconds, tokens=tokens, steps=tokens)


def load(model_dir: Path, speculation: Speculation) -> Runner:
    return Runner(Engine.load(EngineConfig(model_dir=model_dir, speculation=speculation)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description=__doc__)
    parser.add_argument("--model-dir", type=Path, default=DEFAULT_MODEL_DIR)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    plain, drafted = load(options.model_dir, "off"), load(options.model_dir, "ngram")
    write(f"{cpu_model()}, one thread, torch {torch.__version__}, best of {options.repeats}")
    speculation_tables(plain, drafted, options.repeats)
    one_stream_table(options.model_dir, plain, drafted, options.repeats)


if __name__ == "__main__":
    main()
