import itertools
import time
from pathlib import Path

import pytest
import torch

from tests.workers.engines import Answer, finish, make_engine, request, run, tables
from workers.engine.engine import Engine, PromptTooLong
from workers.engine.metrics import Metrics
from workers.engine.sequence import FinishReason


@pytest.fixture
def engine(tiny_model_dir: Path) -> Engine:
    return make_engine(tiny_model_dir)


PROMPT = list(range(10, 40))


def test_a_cancelled_requests_blocks_are_free_at_once(engine: Engine):
    # given
    engine.add(request("a", PROMPT, max_tokens=50, ignore_eos=True))
    engine.add(request("b", PROMPT, max_tokens=5, ignore_eos=True, salt="other"))
    for _ in range(4):
        engine.step()
    held = len(engine._sequences["a"].table.block_ids)
    free = engine.pool.free_blocks

    # when
    cancelled = engine.cancel("a")

    # then
    assert cancelled
    assert held > 0
    assert engine.pool.free_blocks == free + held
    engine.pool.check_integrity(tables(engine))
    answers: dict[str, Answer] = {}
    finish(engine, answers)
    assert list(answers) == ["b"]


def test_a_waiting_request_can_be_cancelled(tiny_model_dir: Path):
    # given
    engine = make_engine(tiny_model_dir, max_running_requests=1)
    engine.add(request("a", PROMPT))
    engine.add(request("b", PROMPT))
    engine.step()

    # when
    engine.cancel("b")

    # then
    assert engine.load_now.waiting == 0
    finish(engine, {})


def test_cancelling_what_is_gone_says_so(engine: Engine):
    assert engine.cancel("nobody") is False


def test_a_prompt_without_room_for_an_answer_is_refused_with_both_lengths(engine: Engine):
    # when
    with pytest.raises(PromptTooLong) as caught:
        engine.add(request("a", [5] * 512))

    # then
    assert (caught.value.prompt_tokens, caught.value.context_length) == (512, 512)
    assert not engine.has_work


def test_an_answer_ends_where_the_context_ends(engine: Engine):
    [answer] = run(engine, [request("a", [5] * 500, max_tokens=100, ignore_eos=True)], check=False)
    assert answer.finish_reason is FinishReason.LENGTH
    assert answer.usage.completion_tokens == 12


def test_the_context_is_no_longer_than_the_cache(tiny_model_dir: Path):
    assert make_engine(tiny_model_dir, kv_blocks=11).context_length == 80


def test_max_tokens_counts_exactly(tiny_model_dir: Path):
    # given: prompt lookup may accept several tokens in one step
    engine = make_engine(tiny_model_dir, speculation="ngram")

    # when
    answers = run(
        engine, [request(str(n), PROMPT, max_tokens=n, ignore_eos=True) for n in range(1, 9)]
    )

    # then
    assert [answer.usage.completion_tokens for answer in answers] == list(range(1, 9))
    assert {answer.finish_reason for answer in answers} == {FinishReason.LENGTH}


@pytest.mark.parametrize("speculation", ["off", "ngram"])
def test_a_stop_string_ends_the_answer_before_itself(tiny_model_dir: Path, speculation: str):
    # given
    engine = make_engine(tiny_model_dir, speculation=speculation)
    [whole] = run(engine, [request("whole", PROMPT, ignore_eos=True, max_tokens=40)])
    stop = whole.text[9:12]
    expected = whole.text[: whole.text.index(stop)]

    # when
    [answer] = run(engine, [request("cut", PROMPT, ignore_eos=True, max_tokens=40, stop=(stop,))])

    # then
    assert answer.text == expected
    assert answer.finish_reason is FinishReason.STOP


def test_the_end_token_ends_the_answer_and_is_not_shown(engine: Engine):
    # given: a bias that makes the end token certain
    answer_request = request("a", PROMPT, logit_bias={1: 1000.0})

    # when
    [answer] = run(engine, [answer_request])

    # then
    assert (answer.text, answer.finish_reason) == ("", FinishReason.STOP)
    assert answer.usage.completion_tokens == 1


def test_a_tenant_finds_its_own_prefix_and_nobody_elses(engine: Engine):
    # given
    run(engine, [request("first", PROMPT, salt="alice")])

    # when
    [mine] = run(engine, [request("mine", PROMPT, salt="alice")])
    [other] = run(engine, [request("other", PROMPT, salt="bob")])

    # then
    assert mine.usage.cached_tokens == 24
    assert other.usage.cached_tokens == 0


def test_the_answer_itself_is_cached_for_the_next_turn(engine: Engine):
    # given
    [first] = run(engine, [request("first", PROMPT, max_tokens=20, ignore_eos=True)])

    # when
    [second] = run(engine, [request("second", PROMPT + first.tokens + [7])])

    # then: all but the last token of the answer were computed
    assert second.usage.cached_tokens == 48


def test_a_seed_repeats_a_sampled_answer_in_any_company(tiny_model_dir: Path):
    # given
    def sampled(name: str) -> object:
        return request(name, PROMPT, temperature=1.0, top_p=0.95, seed=11, ignore_eos=True)

    alone = make_engine(tiny_model_dir)
    crowd = make_engine(tiny_model_dir, speculation="ngram")

    # when
    [first] = run(alone, [sampled("a")])
    others = [request(f"x{i}", PROMPT[i:], temperature=1.0, seed=i) for i in range(5)]
    second = run(crowd, [*others, sampled("a")])[-1]

    # then
    assert first.tokens == second.tokens


def test_different_seeds_differ(engine: Engine):
    answers = run(engine, [request(str(s), PROMPT, temperature=1.5, seed=s) for s in range(4)])
    assert len({tuple(answer.tokens) for answer in answers}) == 4


def test_penalties_see_the_draft_as_well(tiny_model_dir: Path):
    # given
    def penalised(name: str) -> object:
        return request(name, PROMPT, frequency_penalty=1.0, max_tokens=60, ignore_eos=True)

    # when
    [plain] = run(make_engine(tiny_model_dir), [penalised("a")])
    [drafted] = run(make_engine(tiny_model_dir, speculation="ngram"), [penalised("a")])

    # then
    assert plain.tokens == drafted.tokens


def poison(engine: Engine, victim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the victim's prompt token 9 produce NaN all the way down."""
    embedding = engine.model._embedding.clone()
    embedding[9] = float("nan")
    monkeypatch.setattr(engine.model, "_embedding", embedding)


def test_nan_ends_its_own_request_only(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    # given
    [expected] = run(engine, [request("before", PROMPT, salt="x", ignore_eos=True)])
    poison(engine, "bad", monkeypatch)

    # when
    healthy, bad = run(
        engine,
        [
            request("good", PROMPT, salt="y", ignore_eos=True, logit_bias={9: -1000.0}),
            request("bad", [9, 12, 13]),
        ],
    )

    # then
    assert bad.finish_reason is FinishReason.ERROR
    assert bad.text == ""
    assert healthy.finish_reason is FinishReason.LENGTH
    assert healthy.tokens == expected.tokens


def test_nan_leaves_nothing_behind_in_the_cache(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    # given: so few blocks that the next request gets the poisoned ones
    engine = make_engine(tiny_model_dir, kv_blocks=8)
    [expected] = run(engine, [request("before", PROMPT, ignore_eos=True)])
    poison(engine, "bad", monkeypatch)
    run(engine, [request("bad", [9] * 50)])

    # when
    [after] = run(engine, [request("after", PROMPT, ignore_eos=True, logit_bias={9: -1000.0})])

    # then
    assert after.tokens == expected.tokens
    assert torch.isfinite(engine.forward.cache.blocks).all()


def test_all_requests_can_be_aborted(engine: Engine):
    # given
    for name in "abc":
        engine.add(request(name, PROMPT))
    engine.step()

    # when
    ended = engine.abort_all()

    # then
    assert {item.finish_reason for item in ended} == {FinishReason.ERROR}
    assert not engine.has_work
    assert engine.pool.usage == 0.0


def test_totals_add_up(tiny_model_dir: Path):
    # given
    engine = make_engine(tiny_model_dir, speculation="ngram")

    # when
    answers = run(engine, [request(str(i), PROMPT, salt=str(i), ignore_eos=True) for i in range(3)])
    [cached] = run(engine, [request("again", PROMPT, salt="0", ignore_eos=True)])

    # then
    totals = engine.metrics.totals
    everyone = [*answers, cached]
    assert totals.input_tokens_cached == 24
    assert totals.input_tokens_uncached == 4 * len(PROMPT) - 24
    assert totals.output_tokens == 4 * 24
    assert totals.drafted == sum(answer.usage.drafted for answer in everyone)
    assert totals.steps + totals.accepted == totals.output_tokens
    assert totals.input_seconds > 0
    assert totals.output_seconds > 0


def test_the_time_of_a_step_is_split_by_its_tokens():
    # given
    metrics = Metrics()

    # when
    metrics.observe_step(seconds=2.0, input_tokens=30, replayed_tokens=0, total_tokens=40)
    metrics.observe_step(seconds=1.0, input_tokens=0, replayed_tokens=2, total_tokens=8)

    # then
    totals = metrics.totals
    assert (totals.input_seconds, totals.output_seconds, totals.audit_seconds) == (1.5, 1.25, 0.25)


def test_metrics_carry_vllms_names(engine: Engine):
    # given
    run(engine, [request("a", PROMPT, ignore_eos=True)])

    # when
    engine.publish_gauges()
    page = engine.metrics.render().decode()

    # then
    assert "tokenhouse_worker_num_requests_running 0.0" in page
    assert "tokenhouse_worker_generation_tokens_total 24.0" in page
    assert "tokenhouse_worker_prefix_cache_queries_total 30.0" in page
    assert 'tokenhouse_worker_request_success_total{finished_reason="length"} 1.0' in page
    assert "tokenhouse_worker_time_to_first_token_seconds_count 1.0" in page


def test_what_tokens_cost_is_the_engine_s_own_time_whatever_the_clock_says(tiny_model_dir: Path):
    # given: a machine on which every step takes ten seconds of waiting and a tenth of work
    plain = make_engine(tiny_model_dir)
    waited, worked = itertools.count(0, 10), itertools.count()
    engine = Engine(
        plain.config,
        plain.model,
        plain.tokenizer,
        clock=lambda: float(next(waited)),
        work=lambda: next(worked) / 10,
    )

    # when
    run(engine, [request("a", PROMPT, max_tokens=4)])

    # then: the first step read, three wrote
    totals = engine.metrics.totals
    assert totals.input_seconds + totals.output_seconds == pytest.approx(0.4)


def test_on_a_processor_the_time_of_others_is_not_counted(tiny_model_dir: Path):
    assert make_engine(tiny_model_dir)._work_clock is time.thread_time
