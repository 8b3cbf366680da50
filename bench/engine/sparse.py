"""Sparse experts against a dense model of the same number of parameters: FLOPs and time per step.

Random weights: this is about work, not about text. FLOPs are counted by torch over the engine's
own forward; times are decode steps of both models, taken in turns. Run as
`python -m bench.engine.sparse`.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.engine.wire import Settings
from workers.cache.attention import Bucket, Span
from workers.model.decoder import Batch, Model
from workers.model.experts import SparseMLP
from workers.model.mlp import GatedMLP
from workers.model.rotary import Rope
from workers.model.shape import ModelConfig, Sparse
from workers.weights.linear import PlainLinear

BATCHES = (1, 8, 32)
PAIRS = 20
CONTEXT = 64
BLOCK_SIZE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A sparse model and its dense twin, which has all experts' width in one MLP.

    By default the proportions of OLMoE-1B-7B: 64 experts, 8 of them for each token.
    """

    layers: int = 6
    hidden: int = 512
    expert_width: int = 192
    experts: int = 64
    top_k: int = 8
    vocab: int = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`time_ratios`: dense step over sparse step by batch size: median, first and last quartile."""

    parameters_millions: float
    active_millions: float
    flops_sparse: int
    flops_dense: int
    time_ratios: dict[int, tuple[float, float, float]]
    gate_and_dispatch_share: dict[int, float]

    @property
    def flops_ratio(self) -> float:
        return self.flops_sparse / self.flops_dense


class RandomWeights:
    """Weights of whatever shape is asked for; counts what it gave."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self.sizes: dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        return False

    def __call__(self, name: str, shape: tuple[int, ...]) -> Tensor:
        self.sizes[name] = torch.Size(shape).numel()
        return torch.randn(shape, generator=self._generator) * 0.05


def config_of(shape: Shape, *, sparse: bool) -> ModelConfig:
    head_dim = 64
    routed = Sparse(
        layers=frozenset(range(shape.layers)),
        experts=shape.experts,
        width=shape.expert_width,
        top_k=shape.top_k,
    )
    return ModelConfig(
        family="Olmoe" if sparse else "Llama",
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        layers=shape.layers,
        heads=shape.hidden // head_dim,
        kv_heads=shape.hidden // head_dim,
        head_dim=head_dim,
        context_length=2 * CONTEXT,
        mlp_width=shape.expert_width * shape.experts,
        norm_eps=1e-5,
        tied_embeddings=True,
        eos_token_ids=(0,),
        rope=Rope(dim=head_dim, theta=10_000.0),
        sparse=routed if sparse else None,
    )


class Decoding:
    """Steps of one token for each of `rows` texts that are CONTEXT tokens long."""

    def __init__(self, model: Model, rows: int) -> None:
        blocks = CONTEXT // BLOCK_SIZE + 1
        self._model = model
        self._cache = model.new_cache(num_blocks=rows * blocks + 1, block_size=BLOCK_SIZE)
        tables = [list(range(1 + row * blocks, 1 + (row + 1) * blocks)) for row in range(rows)]
        spans = [Span(table, CONTEXT, 1) for table in tables]
        group = model.config.group
        self._batch = Batch(
            tokens=torch.arange(rows) * 7 % model.config.vocab_size,
            positions=torch.full((rows,), CONTEXT),
            slots=torch.tensor([table[-1] * BLOCK_SIZE for table in tables]),
            buckets=[Bucket(spans, start=0, block_size=BLOCK_SIZE, group=group)],
            logit_rows=torch.arange(rows),
        )

    def step(self) -> None:
        self._model.forward(self._batch, self._cache)

    def seconds(self) -> float:
        started = time.perf_counter()
        self.step()
        return time.perf_counter() - started


def flops_per_token(shape: Shape, *, sparse: bool) -> int:
    """Counted by torch over plain products: it does not see into packed ones."""
    decoding = Decoding(
        Model(config_of(shape, sparse=sparse), RandomWeights(), make=PlainLinear), 1
    )
    with FlopCounterMode(display=False) as counter:
        decoding.step()
    return int(counter.get_total_flops())


def compare(shape: Shape, *, pairs: int, report: Callable[[str], None]) -> Comparison:
    """Count FLOPs, and time `pairs` steps of each model in turns at each batch size."""
    weights = RandomWeights()
    models = {
        True: Model(config_of(shape, sparse=True), weights),
        False: Model(config_of(shape, sparse=False), RandomWeights()),
    }
    ratios, shares = {}, {}
    for rows in BATCHES:
        ratios[rows] = time_ratio(models, rows, pairs)
        shares[rows] = dispatch_share(models[True], rows, pairs)
        report(f"batch {rows}: dense / sparse time {ratios[rows][0]:.2f}")
    total = sum(weights.sizes.values())
    routed = sum(size for name, size in weights.sizes.items() if ".experts." in name)
    active = total - routed + routed * shape.top_k // shape.experts
    return Comparison(
        parameters_millions=round(total / 1e6, 1),
        active_millions=round(active / 1e6, 1),
        flops_sparse=flops_per_token(shape, sparse=True),
        flops_dense=flops_per_token(shape, sparse=False),
        time_ratios=ratios,
        gate_and_dispatch_share=shares,
    )


def measure(settings: Settings) -> Comparison:
    """The default shape, as the engine's bench shows it."""
    torch.set_num_threads(settings["threads"])
    return compare(Shape(), pairs=PAIRS, report=lambda _: None)


def time_ratio(models: dict[bool, Model], rows: int, pairs: int) -> tuple[float, float, float]:
    decodings = {sparse: Decoding(model, rows) for sparse, model in models.items()}
    for decoding in decodings.values():
        decoding.step()
    ratios = []
    for _ in range(pairs):
        # Steps are short and neighbours noisy: the best of three in a row is the step's own time.
        dense, sparse = (
            min(decodings[which].seconds() for _ in range(3)) for which in (False, True)
        )
        ratios.append(dense / sparse)
    first, median, last = statistics.quantiles(ratios, n=4)
    return round(median, 3), round(first, 3), round(last, 3)


def dispatch_share(model: Model, rows: int, repeats: int) -> float:
    """Part of a step's time that experts cost beside their products: gate, sort, scatter, mix."""
    decoding = Decoding(model, rows)
    shares = []
    for _ in range(repeats):
        with timed(SparseMLP, "__call__") as layers, timed(GatedMLP, "alone") as products:
            seconds = decoding.seconds()
        shares.append((sum(layers) - sum(products)) / seconds)
    return round(statistics.median(shares), 3)


@contextmanager
def timed(kind: type, name: str) -> Iterator[list[float]]:
    """Seconds of every call of a method while the block runs."""
    method, seconds = getattr(kind, name), []

    def timed_method(*arguments: object) -> object:
        started = time.perf_counter()
        result = method(*arguments)
        seconds.append(time.perf_counter() - started)
        return result

    with patch.object(kind, name, timed_method):
        yield seconds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.engine.sparse", description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--experts", type=int, default=Shape().experts, help="same size in all")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    def report(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    plain = Shape()
    width = plain.expert_width * plain.experts // options.experts
    shape = Shape(experts=options.experts, expert_width=width)
    result = compare(shape, pairs=options.pairs, report=report)
    report(json.dumps({**asdict(result), "flops_ratio": round(result.flops_ratio, 4)}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
