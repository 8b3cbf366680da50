import math

import pytest
import torch

from tests.workers.engines import finish, make_engine, request, run
from workers.engine.draft_audit import ATTEMPTS_MAX, CASES_MAX, TOKENS_MAX
from workers.engine.engine import Engine
from workers.engine.redraw_verdict import Verdict, compare
from workers.model.sampler import SamplingParams
from workers.speculation.policy import CostCurve

# A text that repeats itself, so that prompt lookup has something to propose.
PROMPT = [5, 80, 33, 7, 7, 120, 64, 9] * 6


@pytest.fixture(autouse=True)
def drafts_cost_nothing(monkeypatch):
    """On a busy machine the measured costs say that drafts do not pay, and none would be sent."""
    monkeypatch.setattr(Engine, "measure_costs", lambda self: CostCurve([(1, 1.0), (64, 1.0)]))


@pytest.fixture
def engine(tiny_model_dir):
    return make_engine(tiny_model_dir, speculation="ngram", audit_share=1.0)


def biased(name: str, **fields):
    """A request whose text drafts get right: it repeats the prompt's tokens."""
    bias = dict.fromkeys((7, 9, 33), 30.0)
    return request(
        name, PROMPT, **{"max_tokens": 30, "logit_bias": bias, "ignore_eos": True, **fields}
    )


def counts(engine) -> tuple[int, int, int]:
    totals = engine.metrics.totals
    return totals.audits_same, totals.audits_tie, totals.audits_different


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_with_drafts_is_computed_again_and_is_the_same(engine, temperature: float):
    # when
    answers = run(engine, [biased(f"r{n}", temperature=temperature, seed=n) for n in range(4)])

    # then
    drafted = sum(answer.usage.drafted > 0 for answer in answers)
    assert drafted > 0
    assert counts(engine) == (drafted, 0, 0)


def test_an_answer_without_drafts_is_not_audited(tiny_model_dir):
    engine = make_engine(tiny_model_dir, speculation="off", audit_share=1.0)
    run(engine, [biased("a")])
    assert counts(engine) == (0, 0, 0)


def test_the_share_decides(tiny_model_dir):
    engine = make_engine(tiny_model_dir, speculation="ngram", audit_share=0.25)
    rolls = iter([0.3, 0.2, 0.9, 0.1])
    engine.auditor._chance = lambda: next(rolls)
    for number in range(4):
        run(engine, [biased(f"r{number}")])
    assert counts(engine) == (2, 0, 0)


def test_a_replay_is_no_work_that_anybody_pays_for(engine):
    # given
    [answer] = run(engine, [biased("a")])

    # then: the totals behind prices are those of the answer alone
    totals = engine.metrics.totals
    assert totals.audits_same == 1
    assert totals.output_tokens == answer.usage.completion_tokens == 30
    assert totals.input_tokens_uncached == len(PROMPT)
    assert totals.audit_seconds > 0
    assert b'audits_total{verdict="same"} 1.0' in engine.metrics.render()
    assert b"request_success_total" in engine.metrics.render()
    assert engine.metrics.finished.labels(finished_reason="length")._value.get() == 1


def test_a_replay_neither_reads_nor_fills_the_prefix_cache(engine):
    run(engine, [biased("a")])
    first = engine.pool.cached_blocks
    run(engine, [biased("b")])
    assert engine.scheduler.stats.hit_tokens <= len(PROMPT)
    assert engine.pool.cached_blocks == first
    assert counts(engine) == (2, 0, 0)


def test_a_wrong_text_is_found_and_told(engine, caplog: pytest.LogCaptureFixture):
    # given: an answer that the model did not give
    engine.add(biased("a"))
    while not any(item.finish_reason for item in engine.step()):
        pass
    case = engine.auditor._cases[0]
    expected = list(case.request.expected)
    expected[10] = next(t for t in (7, 9, 33) if t != expected[10]) + 60
    object.__setattr__(case.request, "expected", tuple(expected))

    # when
    finish(engine, {})

    # then
    assert counts(engine) == (0, 0, 1)
    assert "differs" in caplog.text
    assert b'audits_total{verdict="different"} 1.0' in engine.metrics.render()


def test_a_replay_makes_way_and_comes_back(tiny_model_dir):
    # given: two seats, one idle, so that a replay runs
    engine = make_engine(
        tiny_model_dir,
        speculation="ngram",
        audit_share=1.0,
        max_running_requests=2,
        max_waiting_requests=1,
    )
    engine.add(biased("a"))
    while not any(item.finish_reason for item in engine.step()):
        pass
    engine.step()
    assert engine.auditor.running_id is not None

    # when: the house fills to the last place
    for name in "bcd":
        engine.add(biased(name, auditable=False))

    # then
    assert engine.auditor.running_id is None
    assert engine.load_now.running + engine.load_now.waiting == 3
    answers = {}
    finish(engine, answers)
    assert set(answers) == {"b", "c", "d"}
    assert counts(engine) == (1, 0, 0)


def test_a_replay_that_never_gets_through_is_given_up(engine):
    engine.add(biased("a"))
    while not any(item.finish_reason for item in engine.step()):
        pass
    for _ in range(ATTEMPTS_MAX):
        engine.step()
        engine.cancel(engine.auditor.running_id)
    assert not engine.has_work
    assert counts(engine) == (0, 0, 0)


def test_the_queue_is_bounded_and_long_answers_are_replayed_in_part(tiny_model_dir):
    # given
    engine = make_engine(tiny_model_dir, speculation="ngram", audit_share=1.0, kv_blocks=400)
    for number in range(CASES_MAX + 3):
        engine.add(biased(f"r{number}", max_tokens=TOKENS_MAX + 20))

    # when
    ended = 0
    while ended < CASES_MAX + 3:
        ended += sum(item.finish_reason is not None for item in engine.step())

    # then
    assert len(engine.auditor._cases) <= CASES_MAX
    assert all(len(case.request.expected) == TOKENS_MAX for case in engine.auditor._cases)


def test_nothing_is_left_after_a_reset(engine):
    engine.add(biased("a"))
    while not any(item.finish_reason for item in engine.step()):
        pass
    engine.reset()
    assert not engine.has_work


def row(*probabilities: float) -> torch.Tensor:
    return torch.tensor([math.log(p) for p in probabilities])


@pytest.mark.parametrize(
    ("probabilities", "temperature", "chance", "expected", "verdict"),
    [
        ((0.5, 0.3, 0.2), 0.0, 0.0, 0, Verdict.SAME),
        ((0.5, 0.3, 0.2), 0.0, 0.0, 1, Verdict.DIFFERENT),
        ((0.4001, 0.4, 0.1999), 0.0, 0.0, 1, Verdict.TIE),
        ((0.5, 0.3, 0.2), 1.0, 0.49995, 1, Verdict.TIE),
        ((0.5, 0.3, 0.2), 1.0, 0.50005, 0, Verdict.TIE),
        ((0.5, 0.3, 0.2), 1.0, 0.4, 1, Verdict.DIFFERENT),
        ((0.5, 0.3, 0.2), 1.0, 0.9, 0, Verdict.DIFFERENT),
        ((0.5, 0.3, 0.2), 1.0, 0.999999, 0, Verdict.DIFFERENT),
    ],
)
def test_only_what_rounding_can_explain_is_a_tie(
    probabilities, temperature: float, chance: float, expected: int, verdict: Verdict
):
    # given
    params = SamplingParams(temperature=temperature)
    logits = row(*probabilities)
    cumulative = torch.softmax(logits, -1).cumsum(0)
    drawn = 0 if params.is_greedy else int((cumulative <= chance).sum())

    # then
    found = compare(logits, params, chance=chance, drawn=drawn, expected=expected)
    assert found is verdict
