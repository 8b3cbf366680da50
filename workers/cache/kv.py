"""The paged KV cache: which block belongs to whom, and which finished blocks can be shared.

Invariants: a block's `ref_count` is the number of block tables that hold it; it is in the free list
exactly when that is 0; only full blocks of accepted tokens are sealed (hashed); a freed block keeps
its content and its hash until it is handed out again. Tensors live in `KVCache`.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from workers.device import free_bytes
from workers.memory import check_blocks

PADDING_BLOCK = 0


def root_hash(salt: str) -> bytes:
    """Start of a hash chain; the salt keeps one tenant's blocks invisible to every other."""
    return hashlib.blake2b(salt.encode(), digest_size=16, person=b"kv-root").digest()


def chain_hash(parent: bytes, tokens: Sequence[int]) -> bytes:
    return hashlib.blake2b(parent + array("q", tokens).tobytes(), digest_size=16).digest()


@dataclass(slots=True)
class Block:
    ref_count: int = 0
    sealed_as: bytes | None = None
    parent: bytes = b""
    tokens: tuple[int, ...] = ()


@dataclass(slots=True)
class BlockTable:
    """The blocks of one request, in order, and how far its hash chain is sealed."""

    root: bytes
    block_ids: list[int] = field(default_factory=list)
    sealed_blocks: int = 0
    chain: bytes = b""

    def __post_init__(self) -> None:
        self.chain = self.root


class BlockPool:
    """Hands out blocks, counts references, finds sealed prefixes. Knows no tensors."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.blocks = [Block() for _ in range(num_blocks)]
        # Least recently used first. The padding block is in no list: masked reads land on it.
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, num_blocks))
        self._sealed: dict[bytes, int] = {}

    @property
    def total_blocks(self) -> int:
        return len(self.blocks) - 1

    @property
    def free_blocks(self) -> int:
        return len(self._free)

    @property
    def cached_blocks(self) -> int:
        """Free blocks whose content can still be found by its hash."""
        return sum(1 for block_id in self._free if self.blocks[block_id].sealed_as is not None)

    @property
    def usage(self) -> float:
        return 1.0 - self.free_blocks / self.total_blocks

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def grow(self, table: BlockTable, num_tokens: int) -> bool:
        """Give the table room for `num_tokens`, or change nothing and say False."""
        missing = self.blocks_for(num_tokens) - len(table.block_ids)
        if missing > len(self._free):
            return False
        for _ in range(missing):
            table.block_ids.append(self._take_least_recent())
        return True

    def adopt_prefix(self, table: BlockTable, tokens: Sequence[int]) -> int:
        """Fill an empty table with sealed blocks that hold a prefix of `tokens`; its length.

        At least the last token is left out: it must be computed, for its logits.
        """
        assert not table.block_ids
        size = self.block_size
        for start in range(0, (len(tokens) - 1) // size * size, size):
            window = tuple(tokens[start : start + size])
            key = chain_hash(table.chain, window)
            block_id = self._sealed.get(key)
            if block_id is None:
                break
            block = self.blocks[block_id]
            # Comparing what was hashed makes a collision a miss, never another tenant's text.
            if block.tokens != window or block.parent != table.chain:
                break
            self._retain(block_id)
            table.block_ids.append(block_id)
            table.sealed_blocks += 1
            table.chain = key
        return table.sealed_blocks * size

    def seal(self, table: BlockTable, tokens: Sequence[int], num_computed: int) -> None:
        """Make every full block of computed, accepted tokens findable."""
        assert num_computed <= len(tokens)
        size = self.block_size
        while (table.sealed_blocks + 1) * size <= num_computed:
            start = table.sealed_blocks * size
            window = tuple(tokens[start : start + size])
            key = chain_hash(table.chain, window)
            block = self.blocks[table.block_ids[table.sealed_blocks]]
            if key not in self._sealed:
                block.sealed_as, block.parent, block.tokens = key, table.chain, window
                self._sealed[key] = table.block_ids[table.sealed_blocks]
            table.sealed_blocks += 1
            table.chain = key

    def release(self, table: BlockTable) -> None:
        """Drop the table's references; the tail of the text becomes the first to be reused."""
        self._release(table.block_ids)
        table.block_ids = []
        table.sealed_blocks = 0
        table.chain = table.root

    def forget(self, block_ids: Iterable[int]) -> list[int]:
        """Unseal the given blocks that nobody holds and return them: their content is bad."""
        unheld = [block_id for block_id in block_ids if self.blocks[block_id].ref_count == 0]
        for block_id in unheld:
            self._unseal(self.blocks[block_id])
        return unheld

    def check_integrity(self, tables: Iterable[BlockTable]) -> None:
        """Assert the invariants at the top of this file against all live tables."""
        held = [0] * len(self.blocks)
        for table in tables:
            assert len(set(table.block_ids)) == len(table.block_ids)
            assert table.sealed_blocks <= len(table.block_ids)
            for block_id in table.block_ids:
                held[block_id] += 1
        assert held[PADDING_BLOCK] == 0
        for block_id, block in enumerate(self.blocks):
            assert block.ref_count == held[block_id], f"block {block_id} is miscounted"
            if block_id != PADDING_BLOCK:
                assert (block.ref_count == 0) == (block_id in self._free)
            if block.sealed_as is not None:
                assert self._sealed[block.sealed_as] == block_id
                assert chain_hash(block.parent, block.tokens) == block.sealed_as
        assert len(self._sealed) == sum(block.sealed_as is not None for block in self.blocks)

    def _take_least_recent(self) -> int:
        block_id, _ = self._free.popitem(last=False)
        block = self.blocks[block_id]
        assert block.ref_count == 0
        self._unseal(block)
        block.ref_count = 1
        return block_id

    def _retain(self, block_id: int) -> None:
        block = self.blocks[block_id]
        if block.ref_count == 0:
            del self._free[block_id]
        block.ref_count += 1

    def _release(self, block_ids: list[int]) -> None:
        for block_id in reversed(block_ids):
            block = self.blocks[block_id]
            assert block.ref_count > 0
            block.ref_count -= 1
            if block.ref_count == 0:
                self._free[block_id] = None
                if block.sealed_as is None:
                    # Nobody can find it again, so it is the cheapest to reuse.
                    self._free.move_to_end(block_id, last=False)

    def _unseal(self, block: Block) -> None:
        if block.sealed_as is not None:
            del self._sealed[block.sealed_as]
            block.sealed_as, block.parent, block.tokens = None, b"", ()


class KVCache:
    """What attention reads back, of all layers: [layers, blocks, block_size, heads, head_dim].

    The heads are those of the keys, then those of the values; or one that serves as both. Behind
    the pool's blocks lies one that no table holds: padding of a step of fixed size writes there.
    Raises `NotEnoughMemory` where the blocks could not all be in use.
    """

    def __init__(
        self,
        *,
        layers: int,
        num_blocks: int,
        block_size: int,
        heads: int,
        head_dim: int,
        like: Tensor,
    ) -> None:
        """Zeros, on the device and of the type of `like`."""
        shape = (layers, num_blocks + 1, block_size, heads, head_dim)
        block_bytes = layers * block_size * heads * head_dim * like.element_size()
        check_blocks(
            num_blocks,
            block_bytes=block_bytes,
            block_size=block_size,
            available=free_bytes(like.device),
        )
        if like.device.type == "cpu" and like.dtype is torch.float32:
            # numpy's zeros are pages that are not resident until written; torch writes them all.
            self.blocks = torch.from_numpy(np.zeros(shape, dtype=np.float32))
        else:
            self.blocks = like.new_zeros(shape)
        self.scratch_block = num_blocks
        self.slots = self.blocks.view(layers, (num_blocks + 1) * block_size, heads, head_dim)

    def scrub(self, block_ids: list[int]) -> None:
        """Zero blocks that may hold NaN: a masked NaN still poisons a sum."""
        if block_ids:
            self.blocks[:, torch.tensor(block_ids)] = 0.0
