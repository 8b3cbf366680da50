"""The parity command on a tiny model: what it compares, what it calls a tie, and its resuming."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from bench.engine.parity import __main__ as command
from bench.engine.parity import matrix, sitting
from bench.engine.parity.matrix import MODES, RESULTS_FILE, Answer, Compared, compare, stored
from bench.engine.parity.prompts import COUNT, SIZES, Batch, dealt
from bench.engine.parity.reference import Answers, Tie
from bench.engine.parity.table import render
from workers.text.tokenizer import Tokenizer

FEW = (1, 2, 4)


def few_prompts(tokenizer: Tokenizer) -> list[list[int]]:
    return [tokenizer.encode(letter * (4 + 9 * n)) for n, letter in enumerate("abcdefg")]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven short prompts instead of two hundred; the last batch in the tight pool."""
    monkeypatch.setattr(sitting, "two_hundred", few_prompts)
    monkeypatch.setattr(sitting, "COUNT", sum(FEW))
    monkeypatch.setattr(command, "COUNT", sum(FEW))
    batches = [(0, (0,), False), (1, (1, 2), False), (2, (3, 4, 5, 6), True)]
    deal = [Batch(index=i, prompts=p, tight=t) for i, p, t in batches]
    monkeypatch.setattr(sitting, "dealt", lambda count, seed: deal)
    monkeypatch.setattr(matrix, "TIGHT", {**matrix.TIGHT, "kv_blocks": 12})


def run(model_dir: Path, folder: Path, *flags: str) -> int:
    places = ["--model-dir", str(model_dir), "--folder", str(folder), "--threads", "1"]
    return command.main([*places, *flags])


def test_every_prompt_is_in_one_batch_and_sizes_reach_from_one_to_thirty_two():
    for seed in range(len(MODES)):
        batches = dealt(COUNT, seed=seed)
        numbers = [number for batch in batches for number in batch.prompts]
        assert sorted(numbers) == list(range(COUNT))
        assert [len(batch.prompts) for batch in batches] == list(SIZES)
        assert {len(batch.prompts) for batch in batches if batch.tight} == {1, 2, 4, 8, 16, 32}
    assert dealt(COUNT, seed=1) != dealt(COUNT, seed=2)


@pytest.mark.parametrize("quantisation", ["none", "int8"])
def test_a_tiny_model_is_identical_with_every_proposer(
    tiny_model_dir: Path, tmp_path: Path, small: None, quantisation: str, capsys
):
    # when: sitting by sitting
    flags = ["--quantisation", quantisation]
    assert run(tiny_model_dir, tmp_path, *flags, "--for", "0") == command.INCOMPLETE
    assert run(tiny_model_dir, tmp_path, *flags) == 0

    # then
    lines = (tmp_path / RESULTS_FILE).read_text().splitlines()
    assert len(lines) == len(MODES) * len(FEW)
    assert run(tiny_model_dir, tmp_path, *flags) == 0
    assert (tmp_path / RESULTS_FILE).read_text().splitlines() == lines
    output = capsys.readouterr().out
    for mode in MODES:
        assert f"| {mode} | 7 | " in output
    assert "DIFFERENT" not in output


def test_preemption_and_drafts_really_happen(tiny_model_dir: Path, tmp_path: Path, small: None):
    # when
    run(tiny_model_dir, tmp_path, "--modes", "off,ngram,self_draft")

    # then
    [code] = {item.code for item in stored_anyhow(tmp_path)}
    batches = stored(tmp_path, code=code)
    assert stored(tmp_path, code="other") == []
    for mode in ("off", "ngram", "self_draft"):
        own = [item for item in batches if item.mode == mode]
        assert sum(item.preemptions for item in own) > 0
        assert (sum(item.drafted for item in own) > 0) is (mode != "off")


def stored_anyhow(folder: Path) -> list[Compared]:
    lines = (folder / RESULTS_FILE).read_text().splitlines()
    return [Compared(**json.loads(line)) for line in lines]


# ---- what is a tie


BATCH = Batch(index=0, prompts=(0,), tight=False)


def tie(gap: float) -> Tie:
    return Tie(position=1, token=5, best=6, gap=gap)


@pytest.mark.parametrize(
    ("answer", "ties", "kind"),
    [
        ([1, 2], [], "identical"),
        ([1, 5], [tie(0.0019)], "tie"),
        ([1, 5], [tie(0.0021)], "different"),
        ([1, 5], [tie(0.0001), tie(0.5)], "different"),
        # The reference finds nothing wrong with it, and yet it is another text.
        ([1, 5], [], "different"),
        ([1], [tie(0.0001)], "different"),
    ],
)
def test_only_rounding_is_a_tie(answer: list[int], ties: list[Tie], kind: str):
    [(found, facts)] = compare(
        [Answer(tokens=answer)], BATCH, [[9]], expected=[[1, 2]], judge=lambda p, a: ties
    )
    assert found == kind
    assert facts == (
        {} if kind == "identical" else {"prompt": 0, "tokens": list(map(asdict, ties))}
    )


def test_a_tie_and_a_difference_are_named_one_by_one():
    facts = {"prompt": 7, "tokens": [asdict(tie(0.001))]}
    item = Compared(
        code="c", quantisation="none", mode="eagle", index=3, size=3, tight=True, identical=1,
        ties=[facts], different=[{"prompt": 8, "tokens": []}],
    )  # fmt: skip
    text = render([item], against="it")
    assert "| eagle | 3 | 1 | 1 | 1 | 3 | 0 | 0 | 0 |" in text
    assert "- tie (eagle, batch of 3, prompt 7): token 1: 5 for 6, 0.001000 less" in text
    assert "- DIFFERENT (eagle, batch of 3, prompt 8): another length or another text" in text
    assert command._verdict([item], modes=1) == command.DIFFERENT


def test_reference_answers_are_computed_once_for_each_prompt_and_source(tmp_path: Path):
    asked: list[list[int]] = []

    def compute(prompt: list[int], tokens: int) -> list[int]:
        asked.append(prompt)
        return [0] * tokens

    def answers(source: str) -> Answers:
        return Answers(tmp_path / "kept.jsonl", source=source, compute=compute)

    assert answers("a").missing([[1], [2]], 3) == [[1], [2]]
    assert answers("a").get([1], 3) == [0, 0, 0]
    assert answers("a").get([1], 3) == [0, 0, 0]
    assert answers("a").missing([[1], [2]], 3) == [[2]]
    assert asked == [[1]]
    answers("b").get([1], 3)
    assert asked == [[1], [1]]
