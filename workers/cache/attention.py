"""Paged attention over a ragged batch: each request reads its own blocks through its table.

Requests that are alike (similar query count and context) share one bucket: one gather and one SDPA
call. Heads that share a KV head are folded into the query axis, so grouped-query attention needs
no copies of keys. Padding reads block 0, which is always zero, and is masked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.cache.kv import PADDING_BLOCK
from workers.device import CPU, send

SHORT_QUERY_MAX = 16
SMALL_CONTEXT_BLOCKS = 8


@dataclass(frozen=True, slots=True)
class Span:
    """One request's part of a step: query tokens [start, start + count) after `context` others."""

    block_ids: list[int]
    context: int
    count: int

    def blocks(self, block_size: int) -> int:
        return -(-(self.context + self.count) // block_size)


@dataclass(frozen=True)
class Bucket:
    """Requests whose tokens are [start, stop) of the step, in order.

    Its tensors are made when first asked for: a decoder that reads the spans needs none of them.
    """

    spans: Sequence[Span]
    start: int
    block_size: int
    group: int
    device: torch.device = CPU

    @property
    def rows(self) -> int:
        return len(self.spans)

    @cached_property
    def stop(self) -> int:
        return self.start + sum(span.count for span in self.spans)

    @cached_property
    def queries(self) -> int:
        return max(span.count for span in self.spans)

    @cached_property
    def key_count(self) -> int:
        if self.rows == 1:
            return self.spans[0].context + self.queries
        return self._blocks * self.block_size

    @cached_property
    def block_ids(self) -> Tensor:
        """[rows * blocks]"""
        return self._sent[0]

    @cached_property
    def mask(self) -> Tensor | None:
        """[rows, 1, group * queries, keys], None if every key is visible"""
        if self.rows == 1 and self.queries == 1:
            return None
        _, contexts, lasts, _, _ = self._sent
        return _causal_mask(
            contexts, lasts, self.queries, key_count=self.key_count, group=self.group
        )

    @cached_property
    def padding(self) -> tuple[Tensor, Tensor] | None:
        """[rows * queries] -> token, and [stop - start] -> row * queries + query; None if full"""
        return (self._sent[3], self._sent[4]) if self._is_padded else None

    @property
    def _is_padded(self) -> bool:
        return self.stop - self.start < self.rows * self.queries

    @cached_property
    def _sent(self) -> tuple[Tensor, ...]:
        """Table, contexts, last queries, and both sides of the padding, in one transfer."""
        table = [PADDING_BLOCK] * (self.rows * self._blocks)
        for row, span in enumerate(self.spans):
            used, first = span.blocks(self.block_size), row * self._blocks
            table[first : first + used] = span.block_ids[:used]
        counts = [span.count for span in self.spans]
        pad, unpad = _padding(counts, self.queries, self.start) if self._is_padded else ([], [])
        contexts = [span.context for span in self.spans]
        return send((table, contexts, [count - 1 for count in counts], pad, unpad), self.device)

    @cached_property
    def _blocks(self) -> int:
        return max(span.blocks(self.block_size) for span in self.spans)


def arrange(spans: Sequence[Span], block_size: int) -> list[list[int]]:
    """Indices of `spans`, grouped into buckets; the step's tokens must follow this order."""
    short = [i for i, span in enumerate(spans) if span.count <= SHORT_QUERY_MAX]
    short.sort(key=lambda i: (spans[i].count > 1, spans[i].blocks(block_size)))
    groups: list[list[int]] = []
    for i in short:
        if groups and _fits(spans[groups[-1][0]], spans[i], block_size):
            groups[-1].append(i)
        else:
            groups.append([i])
    groups.extend([i] for i, span in enumerate(spans) if span.count > SHORT_QUERY_MAX)
    return groups


def _fits(first: Span, other: Span, block_size: int) -> bool:
    """Padding `first`, the shortest of its bucket, to `other` must at most double its reads."""
    if (first.count > 1) != (other.count > 1):
        return False
    limit = max(SMALL_CONTEXT_BLOCKS, 2 * first.blocks(block_size))
    return other.blocks(block_size) <= limit


def _padding(counts: list[int], queries: int, start: int) -> tuple[list[int], list[int]]:
    pad: list[int] = []
    unpad: list[int] = []
    offset = start
    for row, count in enumerate(counts):
        pad.extend(offset + min(query, count - 1) for query in range(queries))
        unpad.extend(row * queries + query for query in range(count))
        offset += count
    return pad, unpad


def _causal_mask(
    contexts: Tensor, lasts: Tensor, queries: int, *, key_count: int, group: int
) -> Tensor:
    device = contexts.device
    query, key = torch.arange(queries, device=device), torch.arange(key_count, device=device)
    # A padded query repeats the last real one, so that no row of the softmax is empty.
    position = contexts[:, None] + torch.minimum(query, lasts[:, None])  # [rows, queries]
    visible = key <= position[:, :, None]
    bias = torch.zeros(visible.shape, device=device).masked_fill_(~visible, float("-inf"))
    return bias[:, None, None].expand(-1, 1, group, -1, -1).flatten(2, 3)


def attend(query: Tensor, blocks: Tensor, out: Tensor, *, buckets: list[Bucket]) -> None:
    """Write attention of `query` [tokens, heads, dim] over one layer's `blocks` into `out`.

    Where the cache holds a single head (latent attention), its keys are its values.
    """
    kv_heads, head_dim = max(1, blocks.shape[2] // 2), blocks.shape[3]
    group = query.shape[1] // kv_heads
    for bucket in buckets:
        rows, queries = bucket.rows, bucket.queries
        gathered = blocks.index_select(0, bucket.block_ids)
        keys_values = gathered.view(rows, -1, blocks.shape[2], head_dim)
        if bucket.key_count != keys_values.shape[1]:
            keys_values = keys_values[:, : bucket.key_count]
        if bucket.padding is None:
            part = query[bucket.start : bucket.stop]
        else:
            part = query.index_select(0, bucket.padding[0])
        folded = part.view(rows, queries, kv_heads, group, head_dim).permute(0, 2, 3, 1, 4)
        result = F.scaled_dot_product_attention(
            folded.reshape(rows, kv_heads, group * queries, head_dim),
            keys_values[:, :, :kv_heads].transpose(1, 2),
            keys_values[:, :, -kv_heads:].transpose(1, 2),
            attn_mask=None if bucket.mask is None else bucket.mask.to(query.dtype),
        )
        flat = result.view(rows, kv_heads, group, queries, head_dim).permute(0, 3, 1, 2, 4)
        tokens = flat.reshape(rows * queries, kv_heads * group * head_dim)
        if bucket.padding is not None:
            tokens = tokens.index_select(0, bucket.padding[1])
        out[bucket.start : bucket.stop] = tokens
