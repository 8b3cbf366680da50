import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from workers.cache.kv import BlockPool, BlockTable, root_hash

SIZE = 4


def table(salt: str = "") -> BlockTable:
    return BlockTable(root=root_hash(salt))


def filled(pool: BlockPool, tokens: list[int], *, salt: str = "") -> BlockTable:
    result = table(salt)
    assert pool.grow(result, len(tokens))
    pool.seal(result, tokens, len(tokens))
    return result


def test_growing_past_the_pool_changes_nothing():
    # given
    pool = BlockPool(4, SIZE)
    grown = filled(pool, list(range(8)))

    # when
    accepted = pool.grow(grown, 17)

    # then
    assert accepted is False
    assert len(grown.block_ids) == 2
    assert pool.free_blocks == 1
    pool.check_integrity([grown])


def test_a_second_request_shares_full_blocks_but_computes_its_last_token():
    # given
    pool = BlockPool(10, SIZE)
    first = filled(pool, list(range(8)))

    # when
    second = table()
    hit = pool.adopt_prefix(second, list(range(8)))

    # then
    assert hit == 4
    assert second.block_ids == first.block_ids[:1]
    pool.check_integrity([first, second])


def test_only_full_blocks_of_accepted_tokens_are_found():
    # given
    pool = BlockPool(10, SIZE)
    holder = table()
    pool.grow(holder, 11)
    pool.seal(holder, list(range(11)), 7)

    # when
    other = table()
    hit = pool.adopt_prefix(other, list(range(20)))

    # then
    assert hit == 4


def test_another_tenant_never_finds_a_block():
    # given
    pool = BlockPool(10, SIZE)
    filled(pool, list(range(12)), salt="alice")

    # when
    hits = {salt: pool.adopt_prefix(table(salt), list(range(12))) for salt in ("alice", "bob", "")}

    # then
    assert hits == {"alice": 8, "bob": 0, "": 0}


def test_a_hash_collision_is_a_miss(monkeypatch: pytest.MonkeyPatch):
    # given: every block of every text has the same hash
    monkeypatch.setattr("workers.cache.kv.chain_hash", lambda parent, tokens: b"same")
    pool = BlockPool(10, SIZE)
    filled(pool, [1, 2, 3, 4])

    # when
    hit = pool.adopt_prefix(table(), [5, 6, 7, 8, 9])

    # then
    assert hit == 0


def test_a_released_block_is_found_until_it_is_handed_out_again():
    # given
    pool = BlockPool(4, SIZE)
    done = filled(pool, list(range(8)))
    pool.release(done)

    # when
    found = table()
    before = pool.adopt_prefix(found, list(range(9)))
    pool.release(found)
    everything = table()
    pool.grow(everything, 12)
    pool.release(everything)
    after = pool.adopt_prefix(table(), list(range(9)))

    # then
    assert (before, after) == (8, 0)


def test_the_tail_of_a_text_is_evicted_before_its_head():
    # given
    pool = BlockPool(4, SIZE)
    pool.release(filled(pool, list(range(12))))

    # when
    newcomer = table()
    pool.grow(newcomer, SIZE)

    # then
    assert pool.adopt_prefix(table(), list(range(13))) == 8


def test_a_forgotten_block_is_not_found():
    # given
    pool = BlockPool(4, SIZE)
    bad = filled(pool, list(range(8)))
    held = list(bad.block_ids)
    pool.release(bad)

    # when
    forgotten = pool.forget(held)

    # then
    assert sorted(forgotten) == sorted(held)
    assert pool.adopt_prefix(table(), list(range(9))) == 0
    pool.check_integrity([])


def test_two_requests_that_computed_the_same_text_keep_one_findable_copy():
    # given
    pool = BlockPool(10, SIZE)
    first, second = filled(pool, list(range(8))), filled(pool, list(range(8)))

    # when
    pool.release(first)
    pool.release(second)

    # then
    assert pool.cached_blocks == 2
    assert pool.free_blocks == pool.total_blocks
    pool.check_integrity([])


class PoolMachine(RuleBasedStateMachine):
    """Random admissions, growth, sealing and release, with the invariants after every action."""

    @initialize(blocks=st.integers(2, 12))
    def start(self, blocks: int) -> None:
        self.pool = BlockPool(blocks, SIZE)
        self.live: list[tuple[BlockTable, list[int], int]] = []

    @rule(salt=st.sampled_from("ab"), tokens=st.lists(st.integers(0, 1), min_size=1, max_size=24))
    def admit(self, salt: str, tokens: list[int]) -> None:
        new = table(salt)
        hit = self.pool.adopt_prefix(new, tokens)
        assert hit < len(tokens)
        if self.pool.grow(new, len(tokens)):
            self.live.append((new, tokens, hit))
        else:
            self.pool.release(new)

    @precondition(lambda self: self.live)
    @rule(pick=st.integers(0, 99), count=st.integers(1, 9))
    def compute(self, pick: int, count: int) -> None:
        held, tokens, computed = self.live.pop(pick % len(self.live))
        computed = min(len(tokens), computed + count)
        self.pool.seal(held, tokens, computed)
        self.live.append((held, tokens, computed))

    @precondition(lambda self: self.live)
    @rule(pick=st.integers(0, 99), token=st.integers(0, 1))
    def append(self, pick: int, token: int) -> None:
        held, tokens, computed = self.live[pick % len(self.live)]
        if self.pool.grow(held, len(tokens) + 1):
            tokens.append(token)

    @precondition(lambda self: self.live)
    @rule(pick=st.integers(0, 99))
    def end(self, pick: int) -> None:
        held, _, _ = self.live.pop(pick % len(self.live))
        self.pool.release(held)

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "pool"):
            self.pool.check_integrity([held for held, _, _ in self.live])
            used = {block_id for held, _, _ in self.live for block_id in held.block_ids}
            assert self.pool.free_blocks + len(used) == self.pool.total_blocks


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_pool_keeps_its_invariants_under_any_sequence = PoolMachine.TestCase
