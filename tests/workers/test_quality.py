"""The quality report: it finds what a setting loses, names the slice, and reaches the console."""

import json
from functools import partial
from pathlib import Path

import pytest
from torch import Tensor

from bench.engine.quality import slices
from bench.engine.quality.__main__ import render
from bench.engine.quality.judging import RARE, judge_tasks, judge_texts
from bench.engine.quality.scoring import CHUNK_TOKENS, Scorer
from bench.engine.quality.slices import Item, Passage
from tests.workers.engines import make_engine
from workers import quality
from workers.config import EngineConfig
from workers.engine.engine import Engine
from workers.model.decoder import Model
from workers.model.families import read_config
from workers.quality import Quality, SliceQuality
from workers.text.tokenizer import Tokenizer
from workers.weights.checkpoint import Weights
from workers.weights.linear import PlainLinear


def rounded(weight: Tensor, bias: Tensor | None = None, *, bits: int) -> PlainLinear:
    """A product whose rows were rounded to `bits`: a setting with a known fault."""
    steps = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-9) / steps
    return PlainLinear((weight / scale).round() * scale, bias)


def rounded_engine(model_dir: Path, *, bits: int) -> Engine:
    model = Model(read_config(model_dir), Weights(model_dir), make=partial(rounded, bits=bits))
    return Engine(EngineConfig(model_dir=model_dir), model, Tokenizer(model_dir))


@pytest.fixture(scope="session")
def full(real_model_dir: Path) -> Scorer:
    return Scorer(Engine.load(EngineConfig(model_dir=real_model_dir)), tokens_max=320)


@pytest.fixture(scope="session")
def tokenizer(real_model_dir: Path) -> Tokenizer:
    return Tokenizer(real_model_dir)


@pytest.fixture(scope="session")
def few_passages(tokenizer: Tokenizer) -> list[Passage]:
    """The shortest whole passage of each kind of text, to 200 tokens."""
    found: dict[str, Passage] = {}
    for item in slices.passages(tokenizer):
        if item.slice != "long context":
            judged = [position for position in item.judged if position < 199]
            found.setdefault(item.slice, Passage(item.slice, item.tokens[:200], judged))
    return list(found.values())


# ---- texts and tasks


def test_every_kind_of_text_and_task_is_there_in_number(tokenizer: Tokenizer):
    judged: dict[str, int] = {}
    for passage in slices.passages(tokenizer):
        judged[passage.slice] = judged.get(passage.slice, 0) + len(passage.judged)
        assert max(passage.judged) < len(passage.tokens) - 1
    assert judged.keys() == {"English", "code", "non-English", "arithmetic", "long context"}
    assert min(judged.values()) >= 500
    items = slices.items(tokenizer)
    assert {item.slice for item in items} == {"tasks, 0 examples", "tasks, 8 examples"}
    assert len(items) == 320


def test_only_results_of_sums_count(tokenizer: Tokenizer):
    passage = next(item for item in slices.passages(tokenizer) if item.slice == "arithmetic")
    lines = tokenizer.decode(passage.tokens).splitlines()
    results = tokenizer.decode([passage.tokens[position + 1] for position in passage.judged])
    assert results.split() == [line.partition(" = ")[2] for line in lines]


def test_a_long_text_is_judged_behind_a_long_context(tokenizer: Tokenizer):
    long = [item for item in slices.passages(tokenizer) if item.slice == "long context"]
    assert min(item.judged[0] for item in long) == slices.LONG_CONTEXT
    assert len(long) == 4


# ---- scores


def test_scores_are_the_models_own_whatever_the_chunks(tiny_model_dir: Path):
    engine = make_engine(tiny_model_dir)
    tokens = [7 + (index * 31) % 200 for index in range(CHUNK_TOKENS + 40)]
    scorer = Scorer(engine, tokens_max=len(tokens))
    together = scorer.scores(tokens, [5, CHUNK_TOKENS + 3])
    alone = scorer.scores(tokens[: CHUNK_TOKENS + 5], [5, CHUNK_TOKENS + 3])
    assert together.best.tolist() == alone.best.tolist()
    assert together.nats == pytest.approx(alone.nats, abs=1e-4)


def test_a_question_is_answered_by_all_tokens_of_the_answer(full: Scorer, tokenizer: Tokenizer):
    asked = tokenizer.encode(
        "One cat, two cats\nOne dog, two dogs\nOne bird, two birds\nOne hat, two"
    )
    right, wrong = tokenizer.encode(" hats"), tokenizer.encode(" hat stands")
    assert full.is_right(Item("tasks", asked + right, len(right)))
    assert not full.is_right(Item("tasks", asked + wrong, len(wrong)))


# ---- judgement


def test_a_setting_that_is_the_same_loses_nothing(full: Scorer, few_passages: list[Passage]):
    judged = judge_texts(few_passages, full=full, setting=full, vocab_size=49152)
    assert {item.slice for item in judged} == {
        "English",
        "code",
        "non-English",
        "arithmetic",
        RARE,
    }
    assert {(item.loss, item.loss_high, item.disagreement) for item in judged} == {(0.0, 0.0, 0.0)}


def test_eight_bits_pass_and_three_bits_are_brittle(
    full: Scorer, real_model_dir: Path, few_passages: list[Passage], tokenizer: Tokenizer
):
    reports = {}
    for bits in (8, 3):
        setting = Scorer(rounded_engine(real_model_dir, bits=bits), tokens_max=320)
        judged = judge_texts(
            few_passages, full=full, setting=setting, vocab_size=tokenizer.vocab_size
        )
        reports[bits] = Quality(setting=f"rows-{bits}", reference="fp32", slices=judged)
    assert reports[3].is_brittle
    assert reports[3].worst.loss > 10 * abs(reports[8].worst.loss)
    assert not reports[8].is_brittle
    for item in reports[8].slices:
        assert item.loss_low <= item.loss <= item.loss_high


def test_tasks_count_lost_answers(full: Scorer, real_model_dir: Path, tokenizer: Tokenizer):
    items = slices.items(tokenizer)[:24]
    damaged = Scorer(rounded_engine(real_model_dir, bits=2), tokens_max=320)
    judged = judge_tasks(items, full=full, setting=damaged)
    assert {item.n for item in judged} == {12}
    with_examples = next(item for item in judged if item.slice == "tasks, 8 examples")
    assert with_examples.full > with_examples.setting
    lost = with_examples.full - with_examples.setting
    assert with_examples.loss == pytest.approx(lost, abs=1e-3)


# ---- the report beside the model, and on its way to the offer


def slice_quality(**changes: object) -> SliceQuality:
    fields = {
        "slice": "code",
        "kind": "text",
        "n": 100,
        "full": 10.0,
        "setting": 10.1,
        "loss": 0.01,
        "loss_low": 0.0,
        "loss_high": 0.02,
        "disagreement": 0.02,
        "disagreement_high": 0.03,
    }
    return SliceQuality(**{**fields, **changes})


def report(*items: SliceQuality) -> Quality:
    return Quality(setting="fp32", reference="other", slices=list(items))


@pytest.mark.parametrize(
    ("changes", "brittle"),
    [
        ({}, False),
        ({"loss": 0.051}, True),
        ({"disagreement": 0.11}, True),
        ({"kind": "task", "loss": 0.06}, True),
        ({"kind": "task", "loss": 0.04, "disagreement": 0.5}, False),
    ],
)
def test_one_slice_past_its_margin_makes_a_setting_brittle(changes, brittle):
    judged = report(slice_quality(slice="English"), slice_quality(slice="worse", **changes))
    assert judged.is_brittle == brittle
    assert judged.facts().brittle == brittle
    if brittle:
        assert judged.worst.slice == "worse"
        assert "worst slice: worse; brittle" in render(judged)


def test_a_report_is_kept_and_a_damaged_one_is_none(tmp_path: Path):
    judged = report(slice_quality())
    path = quality.store(tmp_path, judged)
    assert quality.stored(tmp_path, "fp32") == judged
    assert quality.stored(tmp_path, "int8") is None
    path.write_text(json.dumps({"setting": "fp32"}))
    assert quality.stored(tmp_path, "fp32") is None
