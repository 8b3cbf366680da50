"""Proposers that run a model, on tiny models: same text, right blocks, clear refusals."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.workers.engines import make_engine, request, run, write_tiny_model
from workers.config import EngineConfig
from workers.engine.engine import Engine
from workers.engine.sequence import FinishReason
from workers.model.decoder import load_model
from workers.speculation.draft_heads import (
    HeadKind,
    HeadShape,
    TrainedHead,
    UnusableHead,
    load_head,
    new_head,
    save_head,
)
from workers.speculation.eagle import UNREAD_MAX, EagleProposer
from workers.speculation.phrases import count_phrases, save_phrases
from workers.speculation.proposers import SpeculationRefused
from workers.speculation.protocol import Ask, Draft
from workers.text.tokenizer import Tokenizer
from workers.training.corpus import Dialogue
from workers.training.fitting import Fitter, pad

HIDDEN, VOCAB = 96, 258


@pytest.fixture(scope="module")
def draft_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("draft"), seed=3)


def trained(kind: HeadKind, *, depth: int = 3, seed: int = 4) -> TrainedHead:
    torch.manual_seed(seed)
    shape = HeadShape(kind=kind, hidden_size=HIDDEN, vocab_size=VOCAB, depth=depth)
    head = new_head(shape)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return TrainedHead(shape, torch.arange(2, VOCAB), head)


@pytest.fixture(scope="module")
def head_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("heads")
    files = {kind: folder / f"{kind}.safetensors" for kind in ("medusa", "eagle")}
    for kind, path in files.items():
        save_head(path, trained(kind))
    return files


MODES = (
    "suffix",
    "suffix+ngram",
    "phrases",
    "phrases+ngram",
    "draft_model",
    "self_draft",
    "medusa",
    "eagle",
    "ngram+eagle",
)


@pytest.fixture(scope="module")
def phrases(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the tiny model says, so that it is often right."""
    texts = [answer.tokens for answer in run(make_engine(tiny_model_dir), batch(3))]
    path = tmp_path_factory.mktemp("phrases") / "phrases.npz"
    save_phrases(path, count_phrases(texts * 5), Tokenizer(tiny_model_dir))
    return path


@pytest.fixture
def speculating(tiny_model_dir: Path, draft_dir: Path, head_files: dict[str, Path], phrases: Path):
    def make(mode: str, **limits: object):
        kind = mode.rpartition("+")[2]
        engine = make_engine(
            tiny_model_dir,
            speculation=mode,
            draft_model_dir=draft_dir if kind == "draft_model" else None,
            draft_head=head_files.get(kind),
            draft_layers=2 if kind == "self_draft" else 0,
            phrases=phrases,
            **limits,
        )
        # Drafts are free here and promising: what is tested is that they change no text.
        engine._drafter._curve = FREE
        engine._drafter._cost.seconds = lambda requests, depth: 0.0
        return engine

    return make


class _Free:
    def seconds(self, tokens: int) -> float:
        return 1.0


FREE = _Free()


def batch(count: int, **fields: object):
    generator = torch.Generator().manual_seed(6)
    lengths = [5, 9, 17, 40, 64, 75, 90, 3]
    prompts = [torch.randint(2, 258, (n,), generator=generator).tolist() for n in lengths[:count]]
    return [
        request(
            str(i), tokens[: len(tokens) // 2 + 1] * 2, max_tokens=40, ignore_eos=True, **fields
        )
        for i, tokens in enumerate(prompts)
    ]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("blocks", [96, 34])
@pytest.mark.parametrize("mode", MODES)
def test_drafts_change_no_text_also_when_requests_are_preempted(
    speculating, tiny_model_dir: Path, mode: str, blocks: int, temperature: float
):
    # given
    requests = batch(6, temperature=temperature, seed=11)
    plain = make_engine(tiny_model_dir, kv_blocks=blocks)
    expected = [answer.tokens for answer in run(plain, requests)]
    engine = speculating(mode, kv_blocks=blocks)

    # when: the second time a memory of past answers has something to propose
    rounds = [run(engine, requests) for _ in range(2)]

    # then
    assert [[answer.tokens for answer in answers] for answers in rounds] == [expected, expected]
    assert sum(answer.usage.drafted for answers in rounds for answer in answers) > 0
    assert (engine.scheduler.stats.preemptions > 0) == (blocks == 34)


def test_a_memory_of_past_answers_makes_the_same_answer_cheap(speculating):
    # given
    engine = speculating("suffix")
    [first] = run(engine, batch(1))

    # when
    [second] = run(engine, batch(1))

    # then
    assert second.tokens == first.tokens
    assert second.usage.steps < first.usage.steps / 3


def test_a_draft_model_that_is_the_target_is_always_right(tiny_model_dir: Path, speculating):
    # given
    engine = make_engine(tiny_model_dir, speculation="draft_model", draft_model_dir=tiny_model_dir)
    engine._drafter._curve = FREE

    # when
    answers = run(engine, batch(4))

    # then
    assert all(answer.usage.accepted == answer.usage.drafted > 20 for answer in answers)


def test_all_layers_but_one_guess_better_than_chance(speculating):
    # when
    answers = run(speculating("self_draft"), batch(6))

    # then
    drafted = sum(answer.usage.drafted for answer in answers)
    assert sum(answer.usage.accepted for answer in answers) > 0.05 * drafted


def test_nothing_is_left_of_requests_that_are_over(speculating):
    # given
    engine = speculating("draft_model")
    for item in batch(6):
        engine.add(item)
    for _ in range(6):
        engine.step()

    # when
    for item in batch(6):
        engine.cancel(item.request_id)

    # then
    [proposer] = engine._drafter._proposers
    assert proposer.usage == 0.0
    assert not proposer._texts
    assert not engine._drafter._states
    assert engine.pool.usage == 0.0


def test_a_draft_cache_that_is_full_gives_no_drafts_and_does_no_harm(
    tiny_model_dir: Path, speculating
):
    # given
    engine = speculating("draft_model")
    [proposer] = engine._drafter._proposers
    taken = proposer._pool
    while taken.free_blocks > 4:
        taken._take_least_recent()

    # when
    answers = run(engine, batch(4))

    # then
    plain = run(make_engine(tiny_model_dir), batch(4))
    assert [a.tokens for a in answers] == [a.tokens for a in plain]


def test_eagle_guesses_what_its_training_saw(tiny_model_dir: Path):
    """The cached, batched proposer and the unrolled training are the same function."""
    # given
    model = load_model(tiny_model_dir)
    head = trained("eagle", depth=4)
    proposer = EagleProposer(head, model, kv_blocks=12, block_size=16)
    generator = torch.Generator().manual_seed(8)
    texts = [torch.randint(2, 258, (n,), generator=generator).tolist() for n in (70, 12)]
    features = [torch.randn(len(text) - 1, HIDDEN, generator=generator) for text in texts]
    normed = [model.normed(rows) for rows in features]

    # when: the states come in parts, as steps compute them
    for name, rows in zip("ab", features, strict=True):
        for first in range(0, len(rows), 7):
            proposer.watch(name, first, rows[first : first + 7])
    blocks = {"a": [7, 2, 9, 4, 1], "b": [3]}
    asks = [
        Ask(key=name, salt="", tokens=text, limit=4, block_ids=blocks[name])
        for name, text in zip("ab", texts, strict=True)
    ]
    drafts = proposer.propose(asks)

    # then
    fitter = Fitter(
        head.head,
        depth=4,
        embedding=model.embedding_rows(torch.arange(VOCAB)),
        output=model.output_rows(head.tokens),
    )
    for text, rows, draft in zip(texts, normed, drafts, strict=True):
        start = len(text) - 2
        padded = pad(
            [Dialogue(text + draft.tokens, 1, torch.cat((rows, torch.zeros(4, HIDDEN))), seed=0)]
        )
        guesses = [guess[0, start] for guess in fitter.guesses(padded)]
        best = [int(head.tokens[(guess @ fitter._output.T).argmax()]) for guess in guesses]
        assert draft.tokens == best


def test_eagle_reads_what_it_can_see_and_no_more(tiny_model_dir: Path):
    """Behind a cached prefix, and behind more than it keeps, it counts from a block's beginning."""
    # given: one request whose first 32 tokens came from the cache, one that is whole
    model = load_model(tiny_model_dir)
    generator = torch.Generator().manual_seed(9)
    text = torch.randint(2, 258, (UNREAD_MAX + 90,), generator=generator).tolist()
    features = torch.randn(len(text) - 1, HIDDEN, generator=generator)

    def draft(first: int, count: int, chunk: int) -> Draft:
        proposer = EagleProposer(trained("eagle", depth=4), model, kv_blocks=60, block_size=16)
        for start in range(first, count, chunk):
            proposer.watch("a", start, features[start : min(start + chunk, count)])
        blocks = list(range(1, 50))
        [guessed] = proposer.propose([Ask("a", "", text[: count + 1], 3, blocks)])
        return guessed

    # then: what stands before does not matter
    behind_cache = draft(32, 80, 1)
    features[:32] = float("nan")
    assert draft(32, 80, 40) == behind_cache
    assert len(behind_cache.tokens) == 3
    # and what was too much to keep, when position 550 came, is the same as never seen
    assert (550 - 32) > UNREAD_MAX >= (543 - 32)
    kept_from = -(-(550 - UNREAD_MAX // 2) // 16) * 16
    assert draft(32, len(text) - 1, 7) == draft(kept_from, len(text) - 1, 64)


def test_numbers_that_broke_leave_no_trace_in_eagles_cache(tiny_model_dir: Path):
    # given: blocks that a request used whose hidden states were not finite
    model = load_model(tiny_model_dir)
    generator = torch.Generator().manual_seed(10)
    text = torch.randint(2, 258, (20,), generator=generator).tolist()
    features = torch.randn(19, HIDDEN, generator=generator)

    def draft(proposer: EagleProposer, key: str, rows: torch.Tensor) -> Draft:
        proposer.watch(key, 0, rows)
        [guessed] = proposer.propose([Ask(key, "", text, 4, [1, 2])])
        proposer.forget(key)
        return guessed

    fresh, used = (
        EagleProposer(trained("eagle", depth=4), model, kv_blocks=8, block_size=16)
        for _ in range(2)
    )
    draft(used, "broken", torch.full_like(features, float("nan")))

    # then
    assert draft(used, "a", features) == draft(fresh, "a", features)


@pytest.mark.parametrize("kind", ["medusa", "eagle"])
def test_a_saved_head_reads_back(tmp_path: Path, kind: HeadKind):
    # given
    head = trained(kind)
    save_head(tmp_path / "head.safetensors", head)

    # when
    loaded = load_head(tmp_path / "head.safetensors", hidden_size=HIDDEN, vocab_size=VOCAB)

    # then
    assert loaded.shape == head.shape
    assert loaded.tokens.tolist() == head.tokens.tolist()
    for name, tensor in head.head.state_dict().items():
        torch.testing.assert_close(loaded.head.state_dict()[name], tensor, rtol=1e-3, atol=1e-3)


def test_a_head_of_another_model_is_refused_with_both_sizes(tmp_path: Path):
    # given
    save_head(tmp_path / "head.safetensors", trained("medusa"))

    # then
    with pytest.raises(UnusableHead, match="hidden size 96 and 258 tokens; this one has 64 and 9"):
        load_head(tmp_path / "head.safetensors", hidden_size=64, vocab_size=9)


def test_a_file_that_is_no_head_is_refused(tmp_path: Path):
    (tmp_path / "head.safetensors").write_bytes(b"hello")
    with pytest.raises(UnusableHead, match="is not a draft head"):
        load_head(tmp_path / "head.safetensors", hidden_size=HIDDEN, vocab_size=VOCAB)


def test_a_head_with_missing_weights_is_refused(tmp_path: Path):
    # given: the shape says eagle, the weights are medusa's
    head = trained("medusa")
    save_head(tmp_path / "head.safetensors", replace(head, shape=replace(head.shape, kind="eagle")))

    # then
    with pytest.raises(UnusableHead, match="lacks weights"):
        load_head(tmp_path / "head.safetensors", hidden_size=HIDDEN, vocab_size=VOCAB)


@pytest.mark.parametrize(
    ("mode", "limits", "message"),
    [
        ("eagle", {}, "--draft-head"),
        ("medusa", {"draft_head": "eagle"}, "is a head for eagle"),
        ("eagle", {"draft_head": "missing"}, "is not a draft head"),
        ("phrases", {}, "another vocabulary than this model's; --phrases"),
        ("draft_model", {}, "--draft-model"),
        ("self_draft", {"draft_layers": 3}, "fewer layers than the model's 3"),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(
    tiny_model_dir: Path, head_files: dict[str, Path], tmp_path: Path, mode, limits, message
):
    if "draft_head" in limits:
        limits = {"draft_head": head_files.get(limits["draft_head"], tmp_path / "none")}
    with pytest.raises(SpeculationRefused, match=message):
        make_engine(tiny_model_dir, speculation=mode, **limits)


def test_a_draft_model_with_another_tokenizer_is_refused(tiny_model_dir: Path, tmp_path: Path):
    # given
    other = write_tiny_model(tmp_path)
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"!"', '"#swapped"', 1))

    # then
    with pytest.raises(SpeculationRefused, match="another vocabulary"):
        make_engine(tiny_model_dir, speculation="draft_model", draft_model_dir=other)


@pytest.mark.parametrize("speculation", ["", "ngrams", "ngram+ngram", "medusa+eagle", "off+ngram"])
def test_unknown_or_impossible_combinations_are_refused(speculation: str):
    with pytest.raises(ValueError, match="speculation|at a time"):
        EngineConfig(speculation=speculation)


def test_an_answer_that_was_cut_short_by_its_caller_is_not_remembered(speculating):
    # given
    engine = speculating("suffix")
    engine.add(batch(1)[0])
    for _ in range(20):
        engine.step()

    # when
    engine.cancel("0")

    # then
    [proposer] = engine._drafter._proposers
    assert proposer.remembered_tokens == 0
    [answer] = run(engine, batch(1))
    assert answer.finish_reason is FinishReason.LENGTH
    assert proposer.remembered_tokens > 0


QUESTIONS = (
    "Explain to a child why the sea is salty.",
    "Write a Python function that returns the largest number of a list.",
    "Write a short letter to a friend who is ill.",
)


@pytest.mark.parametrize("quantisation", ["none", "int8"])
def test_the_head_that_comes_with_the_engine_is_right_every_fourth_time(
    real_model_dir: Path, quantisation: str
):
    # given: drafts of three whenever the head is asked, whatever they cost
    def answers(speculation: str):
        config = EngineConfig(
            model_dir=real_model_dir,
            quantisation=quantisation,
            speculation=speculation,
            draft_depth=3,
        )
        engine = Engine.load(config)
        if engine._drafter is not None:
            engine._drafter._curve = FREE
            engine._drafter._cost.seconds = lambda requests, depth: 0.0
        prompts = [
            engine.tokenizer.encode_chat([{"role": "user", "content": text}]) for text in QUESTIONS
        ]
        return run(engine, [request(str(i), p, max_tokens=48) for i, p in enumerate(prompts)])

    # when
    plain, drafted = answers("off"), answers("eagle")

    # then
    assert [answer.tokens for answer in drafted] == [answer.tokens for answer in plain]
    sent = sum(answer.usage.drafted for answer in drafted)
    right = sum(answer.usage.accepted for answer in drafted)
    assert sent > 100
    assert right > sent / 4
