import pytest

from workers.cache.kv import BlockPool
from workers.config import EngineConfig
from workers.engine.scheduler import QueueFull, Scheduled, Scheduler
from workers.engine.sequence import FinishReason, GenerationRequest, Sequence, new_sequence

SIZE = 4


def make(blocks: int = 64, **limits: int) -> Scheduler:
    settings = {"token_budget": 16, "max_running_requests": 4, "max_waiting_requests": 4, **limits}
    config = EngineConfig(kv_blocks=blocks, block_size=SIZE, **settings)
    return Scheduler(config, BlockPool(blocks, SIZE))


_ages = iter(range(10**6))


def add(scheduler: Scheduler, name: str, length: int, **fields: object) -> Sequence:
    offset = sum(name.encode()) * 1000
    request = GenerationRequest(
        request_id=name, prompt=list(range(offset, offset + length)), max_tokens=50, **fields
    )
    sequence = new_sequence(request, arrived_at=float(next(_ages)))
    scheduler.add(sequence)
    return sequence


def step(scheduler: Scheduler) -> dict[str, int]:
    """Plan a step and pretend to compute it: every request that reaches its end gets a token."""
    plan: list[Scheduled] = scheduler.schedule(0.0)
    counts = {item.sequence.request.request_id: item.count for item in plan}
    for item in plan:
        reached = item.reaches_end
        item.sequence.num_computed += item.count
        if reached:
            item.sequence.tokens.append(0)
    return counts


def names(sequences: list[Sequence]) -> list[str]:
    return [sequence.request.request_id for sequence in sequences]


def test_a_long_prompt_is_computed_in_chunks_of_the_budget():
    # given
    scheduler = make()
    add(scheduler, "a", 40)

    # then
    assert [step(scheduler) for _ in range(4)] == [{"a": 16}, {"a": 16}, {"a": 8}, {"a": 1}]


def test_decoding_requests_come_before_a_new_prompt():
    # given
    scheduler = make()
    add(scheduler, "a", 4)
    step(scheduler)
    add(scheduler, "b", 40)

    # then
    assert step(scheduler) == {"a": 1, "b": 15}
    assert step(scheduler) == {"a": 1, "b": 15}


def test_short_prompts_share_one_step():
    # given
    scheduler = make()
    for name in "abc":
        add(scheduler, name, 5)

    # then
    assert step(scheduler) == {"a": 5, "b": 5, "c": 5}


def test_seats_are_limited():
    # given
    scheduler = make(max_running_requests=2)
    for name in "abc":
        add(scheduler, name, 2)

    # when
    counts = step(scheduler)

    # then
    assert list(counts) == ["a", "b"]
    assert names(scheduler.waiting) == ["c"]


def test_a_full_house_refuses_and_changes_nothing():
    # given
    scheduler = make(max_running_requests=1, max_waiting_requests=1)
    add(scheduler, "a", 2)
    add(scheduler, "b", 2)

    # then
    with pytest.raises(QueueFull):
        add(scheduler, "c", 2)
    assert names(scheduler.waiting) == ["a", "b"]


def test_priority_goes_first():
    # given
    scheduler = make(max_running_requests=1)
    add(scheduler, "later", 2, priority=1)
    add(scheduler, "sooner", 2, priority=0)

    # then
    assert list(step(scheduler)) == ["sooner"]


def test_tenants_take_turns():
    # given
    scheduler = make(max_running_requests=2)
    for name in ("a1", "a2", "a3"):
        add(scheduler, name, 2, salt="alice")
    add(scheduler, "b1", 2, salt="bob")

    # then
    assert list(step(scheduler)) == ["a1", "b1"]


def test_the_last_admitted_is_preempted_and_comes_back_first():
    # given: 6 blocks; each request needs 3 for its prompt and soon a fourth
    scheduler = make(blocks=7)
    for name in "ab":
        add(scheduler, name, 12)
    add(scheduler, "c", 2)
    step(scheduler)
    step(scheduler)

    # when
    counts = step(scheduler)

    # then
    assert counts == {"a": 1}
    assert names(scheduler.running) == ["a"]
    assert names(scheduler.waiting)[0] == "b"
    assert scheduler.stats.preemptions == 1
    scheduler._pool.check_integrity([s.table for s in scheduler.running + scheduler.waiting])


def test_nothing_is_admitted_in_a_step_that_preempted():
    # given
    scheduler = make(blocks=7)
    add(scheduler, "a", 12)
    add(scheduler, "b", 12)
    step(scheduler)
    step(scheduler)
    add(scheduler, "tiny", 1)

    # then
    assert list(step(scheduler)) == ["a"]


def test_less_important_requests_are_preempted_first():
    # given
    scheduler = make(blocks=7)
    add(scheduler, "batch", 12, priority=5)
    step(scheduler)
    add(scheduler, "live", 8, priority=0)
    step(scheduler)
    step(scheduler)

    # when
    for _ in range(3):
        step(scheduler)

    # then
    assert names(scheduler.running) == ["live"]


def test_a_request_that_does_not_fit_waits():
    # given
    scheduler = make(blocks=7)
    add(scheduler, "a", 12)
    step(scheduler)
    add(scheduler, "b", 16)

    # when
    step(scheduler)

    # then
    assert names(scheduler.waiting) == ["b"]
    assert scheduler.waiting[0].table.block_ids == []


def test_copies_of_a_prompt_wait_for_the_first_and_reuse_its_blocks():
    # given
    scheduler = make()
    leader = add(scheduler, "a", 12)
    copy = new_sequence(leader.request, arrived_at=1e9)
    copy.leader = leader
    scheduler.add(copy)

    # when
    step(scheduler)
    waited = copy in scheduler.waiting
    scheduler._pool.seal(leader.table, leader.tokens, leader.num_computed)
    step(scheduler)

    # then
    assert waited
    assert copy.cached_tokens == 8


def test_copies_do_not_wait_for_a_first_that_is_gone():
    # given
    scheduler = make()
    leader = add(scheduler, "a", 12)
    copy = new_sequence(leader.request, arrived_at=1e9)
    copy.leader = leader
    scheduler.add(copy)

    # when
    leader.finish_reason = FinishReason.CANCELLED
    scheduler.remove(leader)

    # then
    assert step(scheduler) == {"a": 12}


def test_a_removed_request_gives_back_its_blocks():
    # given
    scheduler = make()
    running = add(scheduler, "a", 12)
    step(scheduler)

    # when
    scheduler.remove(running)

    # then
    assert scheduler._pool.usage == 0.0
    assert not scheduler.has_work


def test_a_draft_gets_only_blocks_that_are_free():
    # given: the request has two slots left in its block, and there is no other block
    scheduler = make(blocks=2)
    sequence = add(scheduler, "a", 1)
    step(scheduler)

    # then
    assert scheduler.grow_for_draft(sequence, 8) == 2


def test_a_better_priority_takes_the_seat_of_the_worst():
    # given
    scheduler = make(max_running_requests=2)
    add(scheduler, "default", 6, priority=0)
    add(scheduler, "flex", 6, priority=5)
    step(scheduler)

    # when
    add(scheduler, "urgent", 6, priority=-5)
    step(scheduler)

    # then
    assert names(scheduler.running) == ["default", "urgent"]
    assert names(scheduler.waiting) == ["flex"]
    assert scheduler.waiting[0].table.block_ids == []


def test_an_equal_priority_waits():
    # given
    scheduler = make(max_running_requests=1)
    add(scheduler, "first", 6, priority=3)
    step(scheduler)

    # when
    add(scheduler, "second", 6, priority=3)
    step(scheduler)

    # then
    assert names(scheduler.running) == ["first"]
    assert scheduler.stats.preemptions == 0


def test_a_long_prompt_of_worse_priority_gives_up_the_budget():
    # given: a prompt that takes the whole budget of many steps
    scheduler = make(token_budget=16, blocks=64)
    add(scheduler, "batch", 200, priority=9)
    step(scheduler)

    # when
    add(scheduler, "urgent", 6, priority=0)
    planned = step(scheduler)

    # then
    assert planned["urgent"] == 6


def test_nobody_is_preempted_for_a_request_that_would_not_fit_even_so():
    # given
    scheduler = make(blocks=9)
    add(scheduler, "default", 12, priority=0)
    add(scheduler, "flex", 8, priority=5)
    step(scheduler)

    # when
    add(scheduler, "urgent", 30, priority=1)
    step(scheduler)

    # then
    assert sorted(names(scheduler.running)) == ["default", "flex"]
    assert scheduler.stats.preemptions == 0
