"""From parts of requests to the tensors of one ragged step, in the order that attention wants."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from workers.cache.attention import Bucket, Span, arrange
from workers.cache.paged import paged_lists, paged_step
from workers.device import CPU, send
from workers.model.decoder import Batch


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens of one request at [first, first + len(tokens)), to be stored in its blocks.

    The next token is wanted after each of the last `wanted` tokens.
    """

    tokens: list[int]
    block_ids: list[int]
    first: int
    wanted: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A batch, and which part is where: `order` lists indices of parts as their rows follow."""

    batch: Batch
    order: list[int]


def build_batch(
    parts: Sequence[Part],
    *,
    block_size: int,
    group: int,
    device: torch.device = CPU,
    paged: bool = False,
) -> Layout:
    """One step over `parts`, on the model's device; all its numbers go there in one transfer.

    `group` is the model's query heads for each KV head. `paged` is for models whose attention reads
    block tables; for others buckets are sent when their tensors are first asked for.
    """
    spans = [Span(part.block_ids, part.first, len(part.tokens)) for part in parts]
    order: list[int] = []
    buckets = []
    start = 0
    for indices in arrange(spans, block_size):
        members = [spans[index] for index in indices]
        bucket = Bucket(members, start=start, block_size=block_size, group=group, device=device)
        start = bucket.stop
        buckets.append(bucket)
        order.extend(indices)
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    rows: list[int] = []
    for part in (parts[index] for index in order):
        stop = part.first + len(part.tokens)
        tokens += part.tokens
        positions += range(part.first, stop)
        slots += slots_of(part.block_ids, part.first, stop, block_size)
        rows += range(len(tokens) - part.wanted, len(tokens))
    ordered = [spans[index] for index in order]
    tables = paged_lists(ordered, block_size) if paged else []
    sent = send([tokens, positions, slots, rows, *tables], device)
    batch = Batch(
        tokens=sent[0],
        positions=sent[1],
        slots=sent[2],
        buckets=buckets,
        logit_rows=sent[3],
        paged=paged_step(ordered, sent[4:]) if paged else None,
    )
    return Layout(batch=batch, order=order)


def slots_of(block_ids: list[int], first: int, stop: int, block_size: int) -> list[int]:
    """Where in the cache the tokens at [first, stop) of a request live."""
    return [
        block_ids[position // block_size] * block_size + position % block_size
        for position in range(first, stop)
    ]
