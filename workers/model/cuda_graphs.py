"""Decoding steps recorded once and replayed: their kernels are shorter than their launches.

A recorded step has a fixed size, so there is one for each power of two of requests; without a
kernel that reads lengths from memory, also one for each power of two of blocks that a table may
have. A step that fits is padded to the next size with requests that write to the cache's scratch
block and whose results nobody reads. Prompts, drafts and anything larger run eagerly.
"""

import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.cache.kv import PADDING_BLOCK, KVCache
from workers.cache.paged import Paged
from workers.model.batch import Part, slots_of
from workers.model.decoder import Batch, Model

WARM_UPS = 2
SMALLEST_TABLE = 8

# Hidden states [requests, hidden] and logits [requests, vocab] of a step.
Outputs = tuple[Tensor, Tensor]
Run = Callable[[], Outputs]
Record = Callable[[Run], Run]

logger = logging.getLogger(__name__)


class Recorder:
    """Captures runs as CUDA graphs that share one pool of memory: only one replays at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Run) -> Run:
        with torch.cuda.device(self._device):
            self._warm_up(run)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                outputs = run()

        def replay() -> Outputs:
            graph.replay()
            return outputs

        return replay

    def _warm_up(self, run: Run) -> None:
        """First calls choose kernels and take workspaces, which can't be captured."""
        side, current = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                run()
        current.wait_stream(side)


@dataclass(frozen=True, slots=True)
class Size:
    requests: int
    blocks: int


class RecordedStep:
    """One size: the memory its inputs are read from, and the run over it."""

    def __init__(self, size: Size, model: Model, cache: KVCache, record: Record) -> None:
        self._size, self._block_size = size, cache.blocks.shape[2]
        self._scratch = cache.scratch_block
        numbers = torch.tensor(self._numbers([]))
        self._staged = numbers.pin_memory() if model.device.type == "cuda" else numbers
        self._inputs = numbers.to(model.device, copy=True)
        self._replay = record(lambda: self._run(model, cache))

    def __call__(self, parts: Sequence[Part]) -> Outputs:
        """Valid until the next step of any size. The last step's results must have been read:
        until then its inputs may still be on their way out of the staging memory."""
        self._staged.copy_(torch.tensor(self._numbers(parts)))
        self._inputs.copy_(self._staged, non_blocking=True)
        hidden, logits = self._replay()
        return hidden[: len(parts)], logits[: len(parts)]

    def _numbers(self, parts: Sequence[Part]) -> list[int]:
        """Tokens, positions, slots and lengths of all requests, then their tables."""
        size, block_size = self._size, self._block_size
        padding = size.requests - len(parts)
        slots = [slots_of(p.block_ids, p.first, p.first + 1, block_size)[0] for p in parts]
        numbers = [part.tokens[0] for part in parts] + [0] * padding
        numbers += [part.first for part in parts] + [0] * padding
        numbers += slots + [self._scratch * block_size] * padding
        numbers += [part.first + 1 for part in parts] + [1] * padding
        for part in parts:
            used = part.block_ids[: part.first // block_size + 1]
            numbers += used + [PADDING_BLOCK] * (size.blocks - len(used))
        numbers += [self._scratch, *[PADDING_BLOCK] * (size.blocks - 1)] * padding
        return numbers

    def _run(self, model: Model, cache: KVCache) -> Outputs:
        requests, blocks = self._size.requests, self._size.blocks
        sizes = [requests] * 4 + [requests * blocks]
        tokens, positions, slots, lengths, tables = torch.split(self._inputs, sizes)
        rows = torch.arange(requests + 1, dtype=torch.int32, device=model.device)
        paged = Paged(
            tables.int().view(requests, blocks),
            lengths.int(),
            rows,
            queries=1,
            keys=blocks * self._block_size,
        )
        batch = Batch(tokens, positions, slots, [], logit_rows=rows[:-1], paged=paged)
        hidden = model.hidden_states(batch, cache)
        return hidden, model.logits(hidden)


class DecodeGraphs:
    """All sizes of up to `requests_max` requests over contexts of up to `keys_max` tokens."""

    def __init__(
        self, model: Model, cache: KVCache, record: Record, *, requests_max: int, keys_max: int
    ) -> None:
        started = time.monotonic()
        self._block_size = cache.blocks.shape[2]
        blocks_max = -(-keys_max // self._block_size)
        self._requests = powers_of_two(1, requests_max)
        # A kernel that reads lengths takes any table as it is; gathering reads all of it.
        shortest = blocks_max if model.kernel is not None else min(SMALLEST_TABLE, blocks_max)
        self._blocks = powers_of_two(shortest, blocks_max)
        sizes = [Size(requests, blocks) for requests in self._requests for blocks in self._blocks]
        self._steps: dict[Size, RecordedStep] = {}
        # The largest first: the others find their memory in the pool.
        for count, size in enumerate(reversed(sizes), start=1):
            self._steps[size] = RecordedStep(size, model, cache, record)
            logger.info(
                "recorded decoding step %d of %d: %s (%.1f s)",
                *(count, len(sizes), size, time.monotonic() - started),
            )

    def size_for(self, parts: Sequence[Part]) -> Size | None:
        """The smallest recorded size that holds these parts, None for a step of another kind."""
        if not parts or any(len(part.tokens) != 1 or part.wanted != 1 for part in parts):
            return None
        longest = max(part.first for part in parts) // self._block_size + 1
        requests = bisect_left(self._requests, len(parts))
        blocks = bisect_left(self._blocks, longest)
        if requests == len(self._requests) or blocks == len(self._blocks):
            return None
        return Size(self._requests[requests], self._blocks[blocks])

    @torch.inference_mode()
    def run(self, parts: Sequence[Part]) -> Outputs | None:
        """What a step over these parts gives, in their order; None where it must run eagerly."""
        size = self.size_for(parts)
        return None if size is None else self._steps[size](parts)


def recorded_steps(
    model: Model, cache: KVCache, *, wanted: bool, requests_max: int, keys_max: int
) -> DecodeGraphs | None:
    """Those of a model on a GPU; None elsewhere, and for one that can't be recorded."""
    if model.device.type != "cuda" or not wanted:
        return None
    if model.waits_for_counts:
        logger.warning("no CUDA graphs: these experts' tokens are counted on the host")
        return None
    graphs = DecodeGraphs(
        model, cache, Recorder(model.device), requests_max=requests_max, keys_max=keys_max
    )
    model.take_expert_use()
    return graphs


def powers_of_two(first: int, last: int) -> list[int]:
    """From `first` doubling, up to the first that reaches `last`, which is cut to it."""
    found = [first]
    while found[-1] < last:
        found.append(min(2 * found[-1], last))
    return found
