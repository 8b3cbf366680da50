"""What drafting costs beside the target: memory and time of every proposer, next to a plain step.

Heads and the draft model are the parity bench's: untrained, but of the size that trained ones have,
and work does not depend on what the weights say. Each proposer is asked for drafts behind prompts
of the bench, for one text and for sixteen at once.
"""

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final

import torch

from bench.engine.experiments import BATCH, pick
from bench.engine.parity.drafts import DRAFT_DEPTH, settings_for
from bench.engine.wire import Settings, resident_mb
from workers.cache.kv import BlockPool, BlockTable
from workers.config import LOOKUPS, MODEL_PROPOSERS, EngineConfig
from workers.engine.engine import Engine
from workers.model.decoder import Model
from workers.speculation.proposers import make_proposers
from workers.speculation.protocol import Ask, Proposer, Watching
from workers.text.tokenizer import Tokenizer

REPEATS: Final = 9
# A draft model reads a prompt in chunks of 128 tokens before it drafts.
READ_ROUNDS: Final = 4
GROWTH: Final = READ_ROUNDS + 2 * REPEATS


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafts:
    """By proposer: resident megabytes more, milliseconds of a proposal for one text and for all."""

    depth: int
    texts: int
    step_ms: list[float]
    memory_mb: dict[str, int]
    one_ms: dict[str, float]
    all_ms: dict[str, float]


def measure(settings: Settings) -> Drafts:
    config = EngineConfig(**settings)
    engine = Engine.load(config)
    curve = engine.measure_costs()
    memory: dict[str, int] = {}
    times: dict[str, tuple[float, float]] = {}
    # None is let go: the next one would be given its memory, and seem to need none.
    kept: list[Proposer] = []
    with tempfile.TemporaryDirectory() as folder:
        for mode in (*LOOKUPS, *MODEL_PROPOSERS):
            files = settings_for(mode, config.model_dir, Path(folder))
            drafting = replace(config, speculation=mode, draft_depth=DRAFT_DEPTH, **files)
            memory[mode], times[mode] = _of_mode(drafting, engine.model, engine.tokenizer, kept)
    return Drafts(
        depth=DRAFT_DEPTH,
        texts=BATCH,
        step_ms=[round(1e3 * curve.seconds(tokens), 2) for tokens in (1, BATCH)],
        memory_mb=memory,
        one_ms={mode: one for mode, (one, _) in times.items()},
        all_ms={mode: every for mode, (_, every) in times.items()},
    )


def _of_mode(
    config: EngineConfig, model: Model, tokenizer: Tokenizer, kept: list[Proposer]
) -> tuple[int, tuple[float, float]]:
    """Megabytes, and milliseconds for one text and for all; the proposer is put into `kept`."""
    cache = model.new_cache(num_blocks=config.kv_blocks, block_size=config.block_size)
    asks = _asks(config, pick(tokenizer, first=0, count=BATCH))
    before = resident_mb()
    [proposer] = make_proposers(config, model, cache, tokenizer).values()
    kept.append(proposer)
    for ask in asks:
        _show(proposer, ask, ask.tokens[:-1], width=model.config.hidden_size)
    for _ in range(READ_ROUNDS):
        proposer.propose(_one_further(proposer, asks, width=model.config.hidden_size))
    grown = resident_mb() - before
    times = [
        _milliseconds(proposer, chosen, width=model.config.hidden_size)
        for chosen in (asks[:1], asks)
    ]
    return grown, (times[0], times[1])


def _asks(config: EngineConfig, prompts: list[list[int]]) -> list[Ask]:
    pool = BlockPool(config.kv_blocks, config.block_size)
    tables = [BlockTable(root=b"") for _ in prompts]
    for table, prompt in zip(tables, prompts, strict=True):
        assert pool.grow(table, len(prompt) + GROWTH + DRAFT_DEPTH)
    return [
        Ask(key=str(i), salt=str(i), tokens=p, limit=DRAFT_DEPTH, block_ids=table.block_ids)
        for i, (p, table) in enumerate(zip(prompts, tables, strict=True))
    ]


def _show(proposer: Proposer, ask: Ask, tokens: list[int], *, width: int) -> None:
    """Show a proposer that reads them states of `tokens`, which end before the last of `ask`."""
    if isinstance(proposer, Watching):
        first = len(ask.tokens) - 1 - len(tokens)
        proposer.watch(ask.key, first, torch.randn(len(tokens), width))


def _one_further(proposer: Proposer, asks: list[Ask], *, width: int) -> list[Ask]:
    """The same requests one token later, as after a step that accepted nothing."""
    for ask in asks:
        ask.tokens.append(ask.tokens[len(ask.tokens) // 2])
        _show(proposer, ask, ask.tokens[-2:-1], width=width)
    return asks


def _milliseconds(proposer: Proposer, asks: list[Ask], *, width: int) -> float:
    times = []
    for _ in range(REPEATS):
        _one_further(proposer, asks, width=width)
        started = time.perf_counter()
        proposer.propose(asks)
        times.append(time.perf_counter() - started)
    return round(1e3 * median(times), 2)
