"""`python -m bench.engine.compile`: whether `torch.compile` makes the decoder's steps faster.

Both sides run the layers of one model in fp32: a step of 1, 8 and 32 tokens, each a text of its own
behind CONTEXT others. The eager side is the engine's, with packed weights; the compiled one has
plain weights that Inductor may pack itself (freezing), because it takes none that are packed. They
take turns; a ratio is eager ÷ compiled, so above 1 the compiled step is faster.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._inductor import config as inductor

from bench.engine.statistics import median_interval
from workers.cache.kv import KVCache
from workers.config import DEFAULT_MODEL_DIR
from workers.model.batch import Part, build_batch
from workers.model.decoder import Model, load_model

CONTEXT = 128
BLOCK_SIZE = 16
SIZES = (1, 8, 32)

Call = Callable[[], Tensor]


class FrozenLinear(nn.Linear):
    """A product whose weight Inductor sees as a constant of the program."""

    kind = "fp32"

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
        self.weight = nn.Parameter(weight, requires_grad=False)
        if bias is not None:
            self.bias = nn.Parameter(bias, requires_grad=False)

    def silu(self, x: Tensor) -> Tensor:
        return F.silu(self(x))

    def relu(self, x: Tensor) -> Tensor:
        return F.relu(self(x))

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        product: Tensor = self(x) * factor
        return product

    def plus(self, x: Tensor, term: Tensor) -> Tensor:
        total: Tensor = self(x) + term
        return total


class LayerCaches:
    """A cache whose layers are tensors of their own.

    A program that writes to a part of an input copies all of it, and one whose inputs are views of
    each other gets them in another order, so that Inductor mistakes its constants.
    """

    def __init__(self, cache: KVCache) -> None:
        self.blocks = [layer.clone() for layer in cache.blocks]

    @property
    def slots(self) -> list[Tensor]:
        return [layer.flatten(0, 1) for layer in self.blocks]


class Layers:
    """All layers of a step over `tokens` texts; a call gives [tokens, hidden]."""

    def __init__(self, model: Model, tokens: int, *, compiled: bool) -> None:
        blocks = CONTEXT // BLOCK_SIZE + 1
        cache = model.new_cache(num_blocks=tokens * blocks + 1, block_size=BLOCK_SIZE)
        parts = [
            Part([7 + row], list(range(1 + row * blocks, 1 + (row + 1) * blocks)), CONTEXT, 1)
            for row in range(tokens)
        ]
        batch = build_batch(parts, block_size=BLOCK_SIZE, group=model.config.group).batch
        step = model._step(batch, cache)
        self._run = model._run
        self._arguments = model._embed(batch), step, range(model.config.layers)
        self()  # makes the step's masks and tables, which are no work of the layers
        if compiled:
            step = replace(step, cache=LayerCaches(cache))
            self._arguments = model._embed(batch), step, range(model.config.layers)
            self._run = torch.compile(model._run, dynamic=False, fullgraph=True)

    def __call__(self) -> Tensor:
        return self._run(*self._arguments)


def seconds(call: Call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


@torch.no_grad()
def compare(engine: Model, plain: Model, tokens: int, *, pairs: int) -> str:
    """A row of the table; the first call of the compiled side is its compilation."""
    eager = Layers(engine, tokens, compiled=False)
    compiled = Layers(plain, tokens, compiled=True)
    compile_s = seconds(compiled)
    torch.testing.assert_close(compiled(), eager(), rtol=1e-3, atol=1e-2)
    times = []
    for pair in range(pairs):
        order = (eager, compiled) if pair % 2 else (compiled, eager)
        taken = {call: seconds(call) for call in order}
        times.append((taken[eager], taken[compiled]))
    ratio = median_interval([one / other for one, other in times])
    one, other = (statistics.median(pair[side] for pair in times) * 1e3 for side in (0, 1))
    return (
        f"| {tokens} | {compile_s:.0f} s | {one:.1f} | {other:.1f} "
        f"| {ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f}) | {ratio.n} |"
    )


def report(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engine.compile", description=__doc__)
    parser.add_argument("--model-dir", type=Path, default=DEFAULT_MODEL_DIR)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--tokens", type=int, nargs="+", default=SIZES)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    inductor.freezing = True
    inductor.force_disable_caches = True
    engine = load_model(options.model_dir)
    plain = load_model(options.model_dir, build=partial(Model, make=FrozenLinear))
    report(f"torch {torch.__version__}, {engine.linear_kind}, {options.threads} threads")
    report("| tokens | compilation | eager, ms | compiled, ms | ratio (95 %) | pairs |")
    report("| --- | --- | --- | --- | --- | --- |")
    for tokens in options.tokens:
        report(compare(engine, plain, tokens, pairs=options.pairs))


if __name__ == "__main__":
    main()
