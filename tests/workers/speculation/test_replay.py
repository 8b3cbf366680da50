"""The replay of drafts over known answers: its steps are the engine's, its sums are plain."""

from pathlib import Path

import pytest

from bench.engine import replay
from bench.engine.prompts import CLASSES, HELD_OUT, TUNING
from bench.engine.replay import Answer, Replayed, rows, stored_or_written
from tests.workers.engines import make_engine, request, run
from workers.config import EngineConfig
from workers.engine.drafter import Drafter
from workers.speculation.ngram import NgramProposer
from workers.speculation.policy import CostCurve
from workers.text.tokenizer import Tokenizer

CURVE = CostCurve([(1, 1.0), (2, 1.01), (8, 1.2), (17, 2.0)])
PROMPT = [5, 6, 7, 8, 9, 10, 11, 12] * 4


def drafter() -> Drafter:
    lookups = {"ngram": NgramProposer(shortest=1, longest=4)}
    return Drafter(lookups, curve=CURVE, max_length=16, model_depth=1)


def replayed(answer: Answer, *, perfect: bool = False) -> Replayed:
    [one] = replay.replay([answer], drafter(), CURVE, perfect=perfect)
    return one


def test_a_replay_takes_the_steps_that_the_engine_took(tiny_model_dir: Path):
    # given
    engine = make_engine(tiny_model_dir, speculation="ngram", ngram_min=1)
    engine._drafter._curve = CURVE
    [known] = run(engine, [request("a", PROMPT, max_tokens=60, ignore_eos=True)])

    # when
    one = replayed(Answer(group="chat", prompt=PROMPT, tokens=known.tokens))

    # then
    assert (one.steps, one.drafted) == (known.usage.steps, known.usage.drafted)
    assert one.steps < 60


def test_who_knows_how_many_guesses_are_right_sends_no_wrong_one():
    # given: the text goes on repeating, but for its sixth token
    tokens = (PROMPT * 2)[:40]
    answer = Answer(group="chat", prompt=PROMPT, tokens=[*tokens[:5], 99, *tokens[6:]])

    # when
    usual, perfect = replayed(answer), replayed(answer, perfect=True)

    # then
    assert perfect.drafted == perfect.tokens - perfect.steps
    assert usual.drafted > usual.tokens - usual.steps
    assert perfect.drafting_s < usual.drafting_s


def test_ratios_are_with_the_prompt_and_without():
    one = Replayed(
        group="chat", tokens=8, steps=4, drafted=9, prompt_s=2.0, plain_s=8.0, drafting_s=3.0
    )
    assert one.whole == 2.0
    assert one.decoding == pytest.approx(8 / 3)
    others = [Replayed(**{**fields_of(one), "group": group}) for group in TUNING]
    table = rows("ngram", others, others)
    assert [line[1] for line in table] == [*TUNING, "copying work", "other"]
    assert {tuple(line[2:]) for line in table} == {("2.00", "2.00 (2.00)", "2.67", "2.00")}


def fields_of(one: Replayed) -> dict:
    return {name: getattr(one, name) for name in Replayed.__slots__}


def test_tuning_prompts_are_not_held_out_ones():
    assert TUNING.keys() == HELD_OUT.keys()
    assert all(TUNING[group][:3] == CLASSES[group] for group in CLASSES)
    texts = [text for prompts in TUNING.values() for text in prompts]
    assert len(set(texts)) == len(texts)
    assert not set(texts) & {text for prompts in HELD_OUT.values() for text in prompts}


def test_answers_are_written_once(tiny_model_dir: Path, tmp_path: Path, monkeypatch):
    # given
    few = dict.fromkeys(TUNING, ("abcabcabc",))
    monkeypatch.setattr(replay, "TUNING", few)
    monkeypatch.setattr(replay, "COPY_TOKENS", 9)
    monkeypatch.setattr(replay, "ONE_STREAM_TOKENS", 5)
    path, config = tmp_path / "bench/answers.json", EngineConfig(model_dir=tiny_model_dir)
    tokenizer = Tokenizer(tiny_model_dir)

    # when
    written = stored_or_written(path, config, tokenizer)
    before = path.stat().st_mtime_ns

    # then
    assert [len(answer.tokens) for answer in written] == [9, 9, 9, 5, 5]
    assert stored_or_written(path, config, tokenizer) == written
    assert path.stat().st_mtime_ns == before
