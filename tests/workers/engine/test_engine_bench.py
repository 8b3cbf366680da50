"""The engine's bench: a figure is worth what its pairs, its interval and its resuming are worth."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.engine import __main__ as main
from bench.engine import facts, summary
from bench.engine.experiments import Experiment, Task, chosen, ours, with_sides
from bench.engine.probes import costs, crowds, drafts, gaps, held, schemas
from bench.engine.prompts import CLASSES, HELD_OUT
from bench.engine.rounds import ROUNDS_FILE, Measured, Recorder, Round, stored
from bench.engine.rows import Row, evaluate
from bench.engine.side import Side, SideFailed, running
from bench.engine.statistics import median_interval
from bench.engine.tables import report
from workers.config import LOOKUPS, MODEL_PROPOSERS
from workers.text.tokenizer import Tokenizer

NEVER = float("inf")


def measured(seconds: float, *, text: str = "a") -> Measured:
    return Measured(
        seconds=seconds, output_tokens=8, steps=8, drafted=0, accepted=0, text_hash=text
    )


def measured_round(index: int, *, code: str = "new", group: str = "chat", **seconds: float):
    return Round(
        experiment="one-stream",
        code=code,
        index=index,
        group=group,
        load=0.0,
        measured={name: measured(value) for name, value in seconds.items()},
        facts={name: {"memory_mb": "1"} for name in seconds},
    )


ROW = Row(experiment="one-stream", title="ours", subject="fp32", peer="generate", bar=2.0)


# ---- statistics


def test_interval_brackets_the_median_and_narrows_with_more_pairs():
    few = median_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    many = median_interval([1.0, 2.0, 3.0, 4.0, 5.0] * 40)
    assert few.median == many.median == 3.0
    assert few.low <= 3.0 <= few.high
    assert many.high - many.low < few.high - few.low


def test_one_pair_says_nothing_about_its_spread_and_none_is_refused():
    assert median_interval([2.5]).n == 1
    with pytest.raises(ValueError, match="at least one"):
        median_interval([])


# ---- rows


def test_bar_is_held_only_when_the_whole_interval_is_above_it():
    above = [measured_round(i, fp32=1.0, generate=2.5) for i in range(20)]
    mixed = [measured_round(i, fp32=1.0, generate=1.5 + (i % 2)) for i in range(20)]
    below = [measured_round(i, fp32=1.0, generate=1.5) for i in range(20)]
    assert [evaluate(ROW, item).verdict for item in (above, mixed, below)] == [
        "held",
        "within noise",
        "missed",
    ]
    assert evaluate(ROW, above[:19]).verdict == "too few pairs"


def test_row_uses_its_own_classes_and_the_newest_code_only():
    rounds = [
        measured_round(0, code="old", fp32=1.0, generate=9.0),
        measured_round(0, fp32=1.0, generate=3.0),
        measured_round(1, group="extract", fp32=1.0, generate=7.0),
    ]
    assert evaluate(ROW, rounds).ratio.n == 2
    assert evaluate(replace(ROW, groups=("extract",)), rounds).ratio.median == 7.0
    assert evaluate(replace(ROW, peer="absent"), rounds) is None


def test_decoding_alone_leaves_out_the_time_to_the_first_token():
    # given: half a second is the prompt's, and a round whose sides did not tell
    told = measured_round(0, fp32=1.0, generate=3.0)
    halves = {name: replace(value, first_seconds=0.5) for name, value in told.measured.items()}
    rounds = [replace(told, measured=halves), measured_round(1, fp32=1.0, generate=9.0)]

    # when
    result = evaluate(replace(ROW, decode_only=True), rounds)

    # then
    assert (result.ratio.median, result.ratio.n) == (5.0, 1)
    assert evaluate(replace(ROW, decode_only=True), rounds[1:]) is None


def test_report_shows_what_was_measured_and_leaves_out_the_rest():
    rounds = [
        measured_round(i, group=name, **{"fp32": 1.0, "fp32 ngram": 0.5, "generate": 2.0})
        for i, name in enumerate([*HELD_OUT] * 4)
    ]
    text = report.render(summary.summarise(rounds, {}))
    assert "| one stream, fp32-exact, against transformers generate | 2.00 (2.00-2.00)" in text
    assert "2.00 (2.00-2.00) |  | 4 of 4" in text
    assert "requests at once" not in text


# ---- prompts


def test_published_figures_come_from_prompts_that_nothing_is_tuned_on():
    assert HELD_OUT.keys() == CLASSES.keys()
    assert {len(prompts) for prompts in HELD_OUT.values()} == {8}
    texts = [text for prompts in HELD_OUT.values() for text in prompts]
    assert len(set(texts)) == len(texts)
    assert not set(texts) & {text for prompts in CLASSES.values() for text in prompts}


def test_unknown_experiment_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="no experiment nonsense; there are one-stream"):
        chosen(["nonsense"])


def test_some_sides_of_an_experiment_can_be_compared_alone():
    [batch] = chosen(["batch"])
    assert [side.name for side in with_sides(batch, ["int8", "int8 ngram"]).sides] == [
        "int8",
        "int8 ngram",
    ]
    with pytest.raises(ValueError, match="batch has no side int4; it has transformers batching"):
        with_sides(batch, ["int4"])


def test_the_name_of_a_side_says_what_drafts():
    assert ours("int8").settings["speculation"] == "off"
    assert ours("int8 suffix+ngram").settings["speculation"] == "suffix+ngram"


# ---- sides and rounds, with real processes


@pytest.fixture
def plain(tiny_model_dir: Path) -> Side:
    settings = {"model_dir": str(tiny_model_dir), "threads": 1, "kv_blocks": 96}
    return Side(name="plain", module="tokenhouse", settings=settings)


@pytest.fixture
def experiment(plain: Side) -> Experiment:
    drafted = Side(
        name="plain ngram", module="tokenhouse", settings=plain.settings | {"speculation": "ngram"}
    )
    return Experiment(
        key="tiny",
        title="tiny",
        sides=(plain, drafted),
        tasks=lambda tokenizer: [
            Task("digits", [tokenizer.encode("12121212"), tokenizer.encode("3434")], 8),
        ],
        rounds=2,
        minutes=0,
    )


def test_interrupted_measurement_goes_on_with_the_rounds_that_are_missing(
    tmp_path: Path, tiny_model_dir: Path, experiment: Experiment
):
    lines: list[str] = []
    recorder = Recorder(tmp_path, Tokenizer(tiny_model_dir), deadline=NEVER, report=lines.append)
    assert recorder.record(experiment, rounds=1)
    with (tmp_path / ROUNDS_FILE).open("a") as file:
        file.write('{"experiment": "tiny", "code"')
        file.write("\n")
    assert recorder.record(experiment, rounds=2)
    rounds = stored(tmp_path)
    assert [item.index for item in rounds] == [0, 1]
    for item in rounds:
        texts = {value.text_hash for value in item.measured.values()}
        assert len(texts) == 1
        assert {value.output_tokens for value in item.measured.values()} == {16}
    assert recorder.record(experiment, rounds=2)
    assert lines[-1] == "tiny: all 2 rounds are there"


def test_measurement_ends_at_its_deadline(
    tmp_path: Path, tiny_model_dir: Path, experiment: Experiment
):
    recorder = Recorder(tmp_path, Tokenizer(tiny_model_dir), deadline=0.0, report=lambda _: None)
    assert not recorder.record(experiment, rounds=1)
    assert stored(tmp_path) == []


def test_side_that_cannot_start_is_reported_with_its_own_words(plain: Side):
    broken = replace(plain, settings=plain.settings | {"threads": 0})
    with pytest.raises(SideFailed, match="every limit of the engine must be at least 1"):
        with running(broken):
            pass


# ---- probes


@pytest.fixture
def settings(real_model_dir: Path) -> dict[str, object]:
    return {"model_dir": real_model_dir, "threads": 1}


def test_held_counts_what_the_pool_really_held(monkeypatch, settings):
    monkeypatch.setattr(held, "KV_BLOCKS", 65)
    monkeypatch.setattr(held, "REQUESTS", 12)
    monkeypatch.setattr(held, "OUTPUT_TOKENS", 4)
    result = held.measure(settings)
    assert result.budget_tokens == 1024
    assert result.reserved_holds(512) == 2
    assert 1 < result.held_mean <= result.held_max < 12
    assert max(result.usage) <= 1.0
    assert result.usage[-1] == 0.0
    assert json.loads(json.dumps(result.usage)) == result.usage


def test_reader_beside_others_waits_for_longer_steps(monkeypatch, settings):
    monkeypatch.setattr(gaps, "READER_TOKENS", 6)
    monkeypatch.setattr(gaps, "BATCH", 2)
    result = gaps.measure(settings)
    assert len(result.alone_ms) == len(result.crowded_ms) == 5
    assert 0 < min(result.alone_ms)
    quarters = [gaps.quantile(result.crowded_ms, percent) for percent in (0, 50, 95, 100)]
    assert quarters == sorted(quarters)
    assert quarters[-1] == max(result.crowded_ms)


def test_reading_and_writing_are_timed_apart(monkeypatch, settings):
    monkeypatch.setattr(crowds, "SWEEP", (1, 2))
    monkeypatch.setattr(crowds, "ROUNDS", 1)
    monkeypatch.setattr(crowds, "BATCH_TOKENS", 4)
    result = crowds.measure(settings)
    assert result.at_once == [1, 2]
    for both, alone in zip(result.end_to_end, result.decode, strict=True):
        assert 0 < both < alone
    assert min(result.prompt) > 0


def test_every_proposer_has_its_memory_and_time(monkeypatch, settings):
    monkeypatch.setattr(drafts, "BATCH", 2)
    monkeypatch.setattr(drafts, "REPEATS", 1)
    result = drafts.measure(settings)
    assert tuple(result.memory_mb) == tuple(result.one_ms) == (*LOOKUPS, *MODEL_PROPOSERS)
    assert result.texts == 2
    # A model of 24 layers weighs hundreds of megabytes and takes its time; a lookup neither.
    assert result.memory_mb["draft_model"] > 200 > result.memory_mb["ngram"]
    assert result.one_ms["draft_model"] > 10 * result.one_ms["ngram"]


def test_answers_under_a_schema_are_valid_with_and_without_drafts(monkeypatch, settings):
    monkeypatch.setattr(schemas, "ANSWERS", 4)
    result = schemas.measure(settings)
    assert result.valid == {"off": 4, "ngram": 4}
    assert result.cut == {"off": 0, "ngram": 0}
    assert result.same_texts == 4
    # What the schema forces is drafted.
    assert result.tokens_per_step["off"] == 1.0 < result.tokens_per_step["ngram"]


def test_cost_of_a_longer_step_never_falls(settings):
    result = costs.measure(settings)
    assert result.tokens[0] == 1
    assert result.step_ms == sorted(result.step_ms)
    assert [drafts for drafts, _ in result.break_even] == [1, 2, 3, 4, 5, 6, 7]


def test_facts_are_measured_once_for_each_version_of_the_code(tmp_path: Path, monkeypatch):
    calls: list[dict[str, object]] = []

    def probe(given: dict[str, object]) -> costs.Costs:
        calls.append(given)
        return costs.Costs(tokens=[1, 2], step_ms=[2.0, 3.0])

    monkeypatch.setattr(facts, "PROBES", {"costs fp32": (probe, ours("fp32"))})
    for _ in range(2):
        facts.measure_missing(tmp_path, deadline=NEVER, report=lambda _: None)
    assert len(calls) == 1
    monkeypatch.setattr(facts, "PROBES", {"costs fp32": (probe, ours("fp32", kv_blocks=96))})
    facts.measure_missing(tmp_path, deadline=0.0, report=lambda _: None)
    assert len(calls) == 1
    facts.measure_missing(tmp_path, deadline=NEVER, report=lambda _: None)
    assert len(calls) == 2
    text = report.render(summary.summarise([], facts.stored(tmp_path)))
    assert "| costs fp32: tokens in a step | 1 | 2 |" in text
    assert "| ms | 2.0 | 3.0 |" in text


def test_experts_are_shown_beside_a_dense_model_of_their_size():
    result = {
        "parameters_millions": 120.0,
        "active_millions": 30.0,
        "flops_sparse": 25,
        "flops_dense": 100,
        "time_ratios": {"1": [2.0, 1.9, 2.1], "8": [1.5, 1.4, 1.6]},
        "gate_and_dispatch_share": {"1": 0.1, "8": 0.2},
    }
    text = report.render(summary.summarise([], {"sparse": {"result": result}}))
    assert "30 of 120 M parameters active (120 of 480 MB in fp32) | batch 1 | batch 8" in text
    assert "| FLOPs of a token against dense | 0.250 |" in text
    assert "| dense step ÷ sparse step | 2.00 (1.90-2.10) | 1.50 (1.40-1.60) |" in text


def test_every_probe_has_a_table():
    interval = {"median": 0.9, "low": 0.8, "high": 1.0, "n": 40}
    both = {"off": 40, "ngram": 39}
    results = {
        "gaps int8": {"alone_ms": [1.0, 2.0, 3.0], "crowded_ms": [2.0, 4.0, 60.0]},
        "drafts int8": {
            "depth": 4,
            "texts": 16,
            "step_ms": [2.0, 4.0],
            "memory_mb": {"eagle": 30},
            "one_ms": {"eagle": 1.0},
            "all_ms": {"eagle": 6.0},
        },
        "crowds int8": {
            "at_once": [1, 64],
            "prompt": [1500.0, 1600.0],
            "decode": [250.0, 1200.0],
            "end_to_end": [200.0, 700.0],
        },
        "schemas int8": {
            "answers": 40,
            "tokens_mean": 30.0,
            "same_texts": 40,
            "valid": both,
            "cut": {"off": 0, "ngram": 1},
            "schema_tps": {"off": 180.0, "ngram": 260.0},
            "free_tps": {"off": 200.0, "ngram": 200.0},
            "tokens_per_step": {"off": 1.0, "ngram": 1.6},
            "ratio": {"off": interval, "ngram": interval},
        },
    }
    facts_by_name = {name: {"result": result} for name, result in results.items()}
    text = report.render(summary.summarise([], facts_by_name))
    assert "| while 16 others run | 3 | 4.0 |" in text
    assert "| eagle | 30 | 1.00 (0.50 ×) | 6.00 (1.50 ×) |" in text
    assert "| answers, end to end | 200 | 700 |" in text
    assert "| ngram | 39 of 40 | 1 | 260 | 200 | 1.60 | 0.90 (0.80-1.00) |" in text


def test_page_of_the_engine_gets_the_tables_between_its_marks(tmp_path: Path, monkeypatch):
    page = tmp_path / "docs/engine-measured.md"
    (page.parent / "img").mkdir(parents=True)
    page.write_text(f"before\n\n{main.BEGIN}\n\nold\n\n{main.END}\n\nafter\n")
    monkeypatch.setattr(main, "PAGE", page)
    (tmp_path / "costs.svg").write_text("<svg/>")
    for _ in range(2):
        main.update_docs(tmp_path, "| new |\n")
    figures = "| new |\n\n![costs](img/engine-costs.svg)"
    assert page.read_text() == f"before\n\n{main.BEGIN}\n\n{figures}\n\n{main.END}\n\nafter\n"
    assert (page.parent / "img/engine-costs.svg").read_text() == "<svg/>"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="no place for tables"):
        main.update_docs(tmp_path, "")
    assert page.read_text() == "no marks"
