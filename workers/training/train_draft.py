"""`python -m workers.training.train_draft`: trains a Medusa or EAGLE head, or counts phrases, for a
model.

    write   the model writes dialogues, a batch at a time through the engine: --minutes 60
    fit     trains a head on what is written so far, also while `write` still runs: --kind eagle
    judge   acceptance of a finished head on dialogues that it was not trained on
    count   the model's phrases in what is written so far

Each can be stopped and started again: dialogues and training go on where they stopped. Nothing is
downloaded. `fit` writes KIND.safetensors, which `--draft-head` of the server takes, `count` writes
phrases.npz for its `--phrases`.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, get_args

import torch
from torch import Tensor

from workers.config import DEFAULT_MODEL_DIR, EngineConfig, Quantisation
from workers.engine.engine import Engine
from workers.model.decoder import Model, load_model
from workers.speculation.draft_heads import (
    DEPTH_MAX,
    HeadShape,
    TrainedHead,
    load_head,
    new_head,
    save_head,
)
from workers.speculation.phrases import ORDER_MAX, count_phrases, save_phrases
from workers.text.tokenizer import Tokenizer
from workers.training.command import report
from workers.training.corpus import Corpus, Dialogue, Writer
from workers.training.fitting import (
    BATCH,
    GRADIENT_NORM_MAX,
    Fitter,
    frequent_tokens,
    learning_rate,
    pad,
    split,
)

PEAK_RATE = 1e-3
BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.01
CHECKPOINT_EVERY_S = 300.0
WRITING_ROWS = 48
REPORT_EVERY = 50
# Batches are drawn so many at a time, and their dialogues then grouped by length.
ALIKE_OF = 16


class Saved(TypedDict):
    """A checkpoint: the head is a module's weights by name, the optimiser's are torch's own."""

    head: Mapping[str, Tensor]
    optimizer: dict[str, object]
    tokens: Tensor
    seconds: float
    steps: int


@dataclass(slots=True)
class Training:
    """What a checkpoint holds beside weights and optimiser: time spent and steps made."""

    trained: TrainedHead
    optimizer: torch.optim.Optimizer
    seconds: float = 0.0
    steps: int = 0

    def state(self) -> Saved:
        return {
            "head": self.trained.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "tokens": self.trained.tokens,
            "seconds": self.seconds,
            "steps": self.steps,
        }


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    if options.command == "write":
        write_dialogues(options)
        return 0
    if options.command == "count":
        count(options)
        return 0
    model = load_model(options.model_dir)
    dialogues = Corpus(options.folder, hidden_size=model.config.hidden_size).read()
    train, held_out = split(dialogues)
    if len(train) < BATCH:
        sys.stderr.write(f"{options.folder} holds {len(train)} dialogues: `write` more first\n")
        return 1
    if options.command == "fit":
        fit(options, model)
    else:
        config = model.config
        trained = load_head(
            options.head, hidden_size=config.hidden_size, vocab_size=config.vocab_size
        )
        report(judge(_fitter(trained, model), held_out, trained.tokens))
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m workers.training.train_draft",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=("write", "fit", "judge", "count"))
    parser.add_argument("--model-dir", type=Path, default=DEFAULT_MODEL_DIR)
    parser.add_argument("--folder", type=Path, default=Path(".tokenhouse/heads"))
    parser.add_argument("--minutes", type=float, default=60.0, help="time for write or fit")
    parser.add_argument("--kind", choices=("medusa", "eagle"), default="eagle")
    parser.add_argument("--depth", type=int, default=4, choices=range(1, DEPTH_MAX + 1))
    parser.add_argument("--vocabulary", type=int, default=4096, help="tokens that a head guesses")
    parser.add_argument("--head", type=Path, help="what to judge (default: KIND.safetensors)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quantisation", choices=get_args(Quantisation), default="none")
    options = parser.parse_args(arguments)
    if options.head is None:
        options.head = options.folder / f"{options.kind}.safetensors"
    return options


def write_dialogues(options: argparse.Namespace) -> None:
    config = EngineConfig(
        model_dir=options.model_dir,
        threads=options.threads,
        quantisation=options.quantisation,
        max_running_requests=WRITING_ROWS,
        kv_blocks=WRITING_ROWS * 32,
    )
    engine = Engine.load(config)
    corpus = Corpus(options.folder, hidden_size=engine.model.config.hidden_size)
    started = time.monotonic()
    until = started + options.minutes * 60
    tokens = 0
    lengths = Writer(engine, corpus).run(go_on=lambda: time.monotonic() < until)
    for count, length in enumerate(lengths, start=1):
        tokens += length
        if count % REPORT_EVERY == 0:
            rate = tokens / (time.monotonic() - started)
            report(f"{count} dialogues, {tokens} tokens of answers, {rate:.0f} tokens/s")


def count(options: argparse.Namespace) -> None:
    """Count over the answers, with the end of each prompt, which leads to their first words."""
    entries = list(Corpus(options.folder, hidden_size=0).entries())
    starts = [max(0, entry["prompt_count"][0] - ORDER_MAX) for entry in entries]
    texts = [entry["tokens"][first:] for entry, first in zip(entries, starts, strict=True)]
    table = count_phrases(texts)
    path = options.folder / "phrases.npz"
    save_phrases(path, table, Tokenizer(options.model_dir))
    report(f"{path}: {len(table)} phrases of {len(texts)} dialogues, {sum(map(len, texts))} tokens")


def fit(options: argparse.Namespace, model: Model) -> None:
    """Train until the minutes are spent; the learning rate falls with them."""
    corpus = Corpus(options.folder, hidden_size=model.config.hidden_size)
    checkpoint = options.folder / f"{options.kind}.checkpoint"
    training = _start_or_resume(options, model, split(corpus.read())[0], checkpoint)
    fitter = _fitter(training.trained, model)
    batches = _batches(corpus, seed=training.steps)
    saved_at = 0.0
    while training.seconds < options.minutes * 60:
        started = time.monotonic()
        for group in training.optimizer.param_groups:
            group["lr"] = learning_rate(PEAK_RATE, training.seconds / (options.minutes * 60))
        with torch.autocast("cpu", torch.bfloat16, enabled=_has_bf16()):
            loss = fitter.loss(pad(next(batches)))
        training.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(fitter.head.parameters(), GRADIENT_NORM_MAX)
        training.optimizer.step()
        training.steps += 1
        training.seconds += time.monotonic() - started
        if training.seconds - saved_at >= CHECKPOINT_EVERY_S:
            saved_at = training.seconds
            _save_checkpoint(checkpoint, training)
            save_head(options.head, training.trained)
            held_out = split(corpus.read())[1]
            judged = judge(fitter, held_out, training.trained.tokens)
            report(f"{saved_at:.0f} s, step {training.steps}, loss {loss.item():.3f}; {judged}")
    _save_checkpoint(checkpoint, training)
    save_head(options.head, training.trained)
    report(judge(fitter, split(corpus.read())[1], training.trained.tokens))


def judge(fitter: Fitter, dialogues: list[Dialogue], tokens: Tensor) -> str:
    """Of held-out starts: how often a chain of 1, 2, ... guesses is right, and its tokens."""
    groups = [dialogues[i : i + BATCH] for i in range(0, len(dialogues), BATCH)]
    hits = torch.cat([fitter.hits(pad(group), tokens) for group in groups], 1)
    chains = hits.long().cumprod(0).float().mean(1)
    rates = " ".join(f"{rate:.3f}" for rate in chains.tolist())
    return (
        f"held out: {len(dialogues)} dialogues, {hits.shape[1]} starts, chains right {rates}, "
        f"{1 + float(chains.sum()):.2f} tokens per step"
    )


def _fitter(trained: TrainedHead, model: Model) -> Fitter:
    every = torch.arange(model.config.vocab_size)
    return Fitter(
        trained.head,
        depth=trained.shape.depth,
        embedding=model.embedding_rows(every),
        output=model.output_rows(trained.tokens),
    )


def _start_or_resume(
    options: argparse.Namespace, model: Model, train: list[Dialogue], checkpoint: Path
) -> Training:
    torch.manual_seed(0)
    shape = HeadShape(
        kind=options.kind,
        hidden_size=model.config.hidden_size,
        vocab_size=model.config.vocab_size,
        depth=options.depth,
    )
    head = new_head(shape)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=PEAK_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY
    )
    if not checkpoint.is_file():
        tokens = frequent_tokens(train, options.vocabulary)
        return Training(TrainedHead(shape, tokens, head), optimizer)
    state: Saved = torch.load(checkpoint, weights_only=True)
    head.load_state_dict(state["head"])
    optimizer.load_state_dict(state["optimizer"])
    report(f"going on after {state['seconds']:.0f} s and {state['steps']} steps")
    trained = TrainedHead(shape, state["tokens"], head)
    return Training(trained, optimizer, seconds=state["seconds"], steps=state["steps"])


def _save_checkpoint(path: Path, training: Training) -> None:
    partial = path.with_suffix(".partial")
    torch.save(training.state(), partial)
    partial.replace(path)


def _has_bf16() -> bool:
    """Whether the processor multiplies bf16 by itself: it takes a third of the time then."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _batches(corpus: Corpus, *, seed: int) -> Iterator[list[Dialogue]]:
    """Shuffled batches without end; each round through the corpus sees what was added to it.

    Those of a batch are about equally long, so that little is padding.
    """
    order = random.Random(seed)
    while True:
        train, _ = split(corpus.read())
        order.shuffle(train)
        for start in range(0, len(train), ALIKE_OF * BATCH):
            alike = sorted(train[start : start + ALIKE_OF * BATCH], key=lambda d: len(d.tokens))
            batches = [alike[at : at + BATCH] for at in range(0, len(alike) - BATCH + 1, BATCH)]
            order.shuffle(batches)
            yield from batches


if __name__ == "__main__":
    sys.exit(main())
