"""Attention by kernels that read pages through block tables, and which of them a GPU gets.

They take the whole ragged step in one call. Without one, `attention.attend` gathers bucket by
bucket on any device.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import activate_flash_attention_impl
from torch.nn.attention.varlen import varlen_attn_out

from workers.cache.attention import Span
from workers.cache.kv import PADDING_BLOCK
from workers.device import AMPERE, HOPPER, Placement

try:
    from flash_attn import flash_attn_varlen_func
except ImportError:
    flash_attn_varlen_func = None

FLASH_HEAD_DIM_MAX = 256
# "page_block_size must be a multiple of 256", says flash_attn 2.
FLASH_2_PAGE = 256
# Causal, aligned with the end of the keys: the last query sees all of them.
CAUSAL = (-1, 0)


@dataclass(frozen=True)
class Paged:
    """A step's block tables. `queries` and `keys` are upper bounds for every request."""

    tables: Tensor  # [requests, blocks] of int32
    lengths: Tensor  # [requests] of int32: keys, those of the step's own tokens included
    starts: Tensor  # [requests + 1] of int32: where each one's queries begin
    queries: int
    keys: int

    @cached_property
    def key_starts(self) -> Tensor:
        """[requests + 1] of int32, as if all keys stood in one row."""
        return F.pad(self.lengths.cumsum(0, dtype=torch.int32), (1, 0))


class Kernel(Protocol):
    def __call__(self, query: Tensor, blocks: Tensor, out: Tensor, *, paged: Paged) -> None:
        """Attention of queries [tokens, heads, dim] over one layer's blocks, written into `out`."""


def paged_lists(spans: Sequence[Span], block_size: int) -> list[list[int]]:
    """What `Paged` is made of, for `device.send`: tables in a row, lengths, starts."""
    width = max(span.blocks(block_size) for span in spans)
    tables: list[int] = []
    starts = [0]
    for span in spans:
        used = span.block_ids[: span.blocks(block_size)]
        tables += used + [PADDING_BLOCK] * (width - len(used))
        starts.append(starts[-1] + span.count)
    return [tables, [span.context + span.count for span in spans], starts]


def paged_step(spans: Sequence[Span], sent: Sequence[Tensor]) -> Paged:
    """From what `paged_lists` listed, on the device."""
    tables, lengths, starts = (part.int() for part in sent)
    return Paged(
        tables.view(len(spans), -1),
        lengths,
        starts,
        queries=max(span.count for span in spans),
        keys=max(span.context + span.count for span in spans),
    )


def flash_2(query: Tensor, blocks: Tensor, out: Tensor, *, paged: Paged) -> None:
    """Tri Dao's package. It is told where keys begin, and finds them through the tables."""
    kv_heads = blocks.shape[2] // 2
    result: Tensor = flash_attn_varlen_func(
        query,
        blocks[:, :, :kv_heads],
        blocks[:, :, kv_heads:],
        cu_seqlens_q=paged.starts,
        cu_seqlens_k=paged.key_starts,
        max_seqlen_q=paged.queries,
        max_seqlen_k=paged.keys,
        causal=True,
        block_table=paged.tables,
    )
    out.copy_(result.view(out.shape))


def flash_3(query: Tensor, blocks: Tensor, out: Tensor, *, paged: Paged) -> None:
    """torch's own call, which only FlashAttention 3 gives pages, of any size."""
    kv_heads = blocks.shape[2] // 2
    varlen_attn_out(
        out.view(query.shape),
        query,
        blocks[:, :, :kv_heads],
        blocks[:, :, kv_heads:],
        cu_seq_q=paged.starts,
        cu_seq_k=None,
        max_q=paged.queries,
        max_k=paged.keys,
        window_size=CAUSAL,
        enable_gqa=True,
        seqused_k=paged.lengths,
        block_table=paged.tables,
    )


def gathered(query: Tensor, blocks: Tensor, out: Tensor, *, paged: Paged) -> None:
    """SDPA over whole tables, for one query of each request: its shapes depend on no length.

    Where the cache holds a single head (latent attention), its keys are its values.
    """
    assert paged.queries == 1
    requests, kv_heads = len(paged.tables), max(1, blocks.shape[2] // 2)
    keys_values = blocks.index_select(0, paged.tables.flatten()).view(
        requests, -1, *blocks.shape[2:]
    )
    keys = torch.arange(keys_values.shape[1], device=query.device)
    result = F.scaled_dot_product_attention(
        query.reshape(requests, kv_heads, -1, query.shape[2]),
        keys_values[:, :, :kv_heads].transpose(1, 2),
        keys_values[:, :, -kv_heads:].transpose(1, 2),
        attn_mask=(keys < paged.lengths[:, None])[:, None, None],
    )
    out.copy_(result.reshape(out.shape))


def choose_kernel(
    place: Placement, *, head_dim: int, latent: bool, block_size: int
) -> tuple[Kernel | None, str]:
    """The kernel for this device and model, None for gathered buckets; and why."""
    if place.device.type != "cuda":
        return None, "SDPA over gathered blocks: not on a GPU"
    if place.dtype is torch.float32:
        return None, "SDPA over gathered blocks: flash attention has no fp32"
    if latent or head_dim > FLASH_HEAD_DIM_MAX:
        return None, "SDPA over gathered blocks: flash attention has no heads like these"
    major, minor = torch.cuda.get_device_capability(place.device)
    if major == HOPPER and importlib.util.find_spec("flash_attn_interface") is not None:
        activate_flash_attention_impl("FA3")
        return flash_3, "FlashAttention 3 through torch, over block tables"
    if major < AMPERE or flash_attn_varlen_func is None:
        reason = f"compute capability {major}.{minor}" if major < AMPERE else "no flash_attn here"
        return None, f"SDPA over gathered blocks: {reason}"
    if block_size % FLASH_2_PAGE:
        return None, f"SDPA over gathered blocks: flash_attn 2 needs --block-size {FLASH_2_PAGE}"
    return flash_2, "flash_attn 2, over block tables"
