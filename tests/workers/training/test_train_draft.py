from itertools import islice
from pathlib import Path

import pytest
import torch

from tests.workers.engines import make_engine
from workers.model.decoder import load_model
from workers.speculation.draft_heads import HeadShape, load_head, new_head
from workers.speculation.phrases import ORDER_MAX, count_phrases, load_phrases
from workers.text.tokenizer import Tokenizer
from workers.training import train_draft
from workers.training.corpus import TASKS, Corpus, Dialogue, Writer
from workers.training.fitting import Fitter, frequent_tokens, learning_rate, pad, split

HIDDEN, VOCAB = 96, 258


def write(tiny_model_dir: Path, folder: Path, *, count: int) -> Corpus:
    engine = make_engine(tiny_model_dir, kv_blocks=400)
    corpus = Corpus(folder, hidden_size=HIDDEN)
    list(islice(Writer(engine, corpus).run(go_on=lambda: True), count))
    return corpus


@pytest.fixture(scope="module")
def folder(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus")
    write(tiny_model_dir, path, count=20)
    return path


def test_features_are_what_decided_the_next_token(tiny_model_dir: Path, folder: Path):
    # given
    model = load_model(tiny_model_dir)
    dialogues = Corpus(folder, hidden_size=HIDDEN).read()

    # when
    greedy = dialogues[0]
    for dialogue in dialogues:
        logits = dialogue.features.float() @ model.output_rows(torch.arange(VOCAB)).T
        best = logits.argmax(-1)[dialogue.prompt_count - 1 :].tolist()
        if best == dialogue.tokens[dialogue.prompt_count :]:
            greedy = dialogue
            break

    # then
    assert best == greedy.tokens[greedy.prompt_count :]
    assert all(len(d.features) == len(d.tokens) - 1 for d in dialogues)


def test_a_run_that_was_cut_off_goes_on(tiny_model_dir: Path, tmp_path: Path):
    # given: half a line and half a row of features at the end
    corpus = write(tiny_model_dir, tmp_path, count=2)
    seeds = [entry["seed"][0] for entry in corpus.entries()]
    before = corpus.read()
    with (tmp_path / "dialogues.jsonl").open("a") as lines:
        lines.write('{"seed": [99], "tok')
    with (tmp_path / "features.f16").open("ab") as features:
        features.write(b"\0" * 101)

    # when
    write(tiny_model_dir, tmp_path, count=2)

    # then
    after = corpus.read()
    assert len(after) > len(before)
    assert [d.tokens for d in after[: len(before)]] == [d.tokens for d in before]
    for one, other in zip(before, after, strict=False):
        assert torch.equal(one.features, other.features)
    everyone = [entry["seed"][0] for entry in corpus.entries()]
    assert everyone[: len(seeds)] == seeds
    assert min(everyone[len(seeds) :]) > max(seeds)


def test_every_answer_is_given_back_with_something_to_do(tiny_model_dir: Path, folder: Path):
    # given: an answer and what was done with it have the same seed
    tokenizer = Tokenizer(tiny_model_dir)
    by_seed: dict[int, list[dict[str, list[int]]]] = {}
    for entry in Corpus(folder, hidden_size=HIDDEN).entries():
        by_seed.setdefault(entry["seed"][0], []).append(entry)

    # then
    pairs = [entries for entries in by_seed.values() if len(entries) == 2]
    assert len(pairs) > 3
    for answer, task in pairs:
        text = tokenizer.decode(answer["tokens"][answer["prompt_count"][0] :]).strip()
        prompt = tokenizer.decode(task["tokens"][: task["prompt_count"][0]], keeps_special=True)
        assert text in prompt
        assert any(wish.format(text) in prompt for wish in TASKS)


def test_held_out_dialogues_are_not_trained_on_nor_is_what_was_done_with_them(folder: Path):
    # when
    dialogues = Corpus(folder, hidden_size=HIDDEN).read()
    train, held_out = split(dialogues)

    # then
    assert held_out
    assert len(train) + len(held_out) == len(dialogues)
    assert not {d.seed for d in train} & {d.seed for d in held_out}


def test_a_longer_corpus_keeps_what_was_held_out(folder: Path):
    # given
    dialogues = Corpus(folder, hidden_size=HIDDEN).read()

    # then
    shorter, longer = split(dialogues[:17])[1], split(dialogues)[1]
    assert shorter
    assert [d.tokens for d in longer[: len(shorter)]] == [d.tokens for d in shorter]


def test_phrases_are_counted_over_the_answers(tiny_model_dir: Path, folder: Path):
    # given
    dialogues = Corpus(folder, hidden_size=HIDDEN).read()
    common = ["--folder", str(folder), "--model-dir", str(tiny_model_dir)]

    # when
    assert train_draft.main(["count", *common]) == 0

    # then
    table = load_phrases(folder / "phrases.npz", Tokenizer(tiny_model_dir))
    answers = [d.tokens[d.prompt_count - ORDER_MAX :] for d in dialogues]
    assert dict(table) == count_phrases(answers) != {}


def learnable(count: int) -> list[Dialogue]:
    """Texts of one eternal cycle, whose features say where in it they are."""
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(7, HIDDEN, generator=generator)
    texts = [[10 + (start + i) % 7 for i in range(40)] for start in range(count)]
    return [
        Dialogue(text, 4, torch.stack([states[token - 10] for token in text[:-1]]), seed)
        for seed, text in enumerate(texts)
    ]


@pytest.mark.parametrize("kind", ["medusa", "eagle"])
def test_training_learns_what_can_be_learned(kind):
    # given
    torch.manual_seed(2)
    dialogues = learnable(6)
    tokens = frequent_tokens(dialogues, 100)
    head = new_head(HeadShape(kind=kind, hidden_size=HIDDEN, vocab_size=VOCAB, depth=3))
    output = torch.zeros(VOCAB, HIDDEN)
    for dialogue in dialogues:
        # The target's matrix finds each state's successor.
        for state, token in zip(dialogue.features, dialogue.tokens[1:], strict=True):
            output[token] = state / 4
    embedding = torch.randn(VOCAB, HIDDEN)
    fitter = Fitter(head, depth=3, embedding=embedding, output=output[tokens])
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    batch = pad(dialogues)
    before = fitter.hits(batch, tokens).float().mean(1)

    # when
    for _ in range(120):
        optimizer.zero_grad()
        fitter.loss(batch).backward()
        optimizer.step()

    # then
    after = fitter.hits(batch, tokens).float().mean(1)
    assert before.max() < 0.6
    assert after.min() > 0.95


def test_judged_guesses_are_those_of_answers():
    # given: three tokens of prompt, five of answer, and a shorter text beside it
    long = Dialogue(list(range(8)), 3, torch.zeros(7, 4), seed=0)
    short = Dialogue([1] * 5, 2, torch.zeros(4, 4), seed=1)

    # when
    judged = pad([long, short]).judged(0)

    # then: from the first known answer token to the last but one
    assert judged.tolist() == [
        [False, False, True, True, True, True],
        [False, True, True, False, False, False],
    ]


def test_the_learning_rate_warms_up_and_falls():
    rates = [learning_rate(1.0, done / 100) for done in range(101)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates.index(max(rates)) < 10
    assert rates[-1] == pytest.approx(0.05)


def test_a_fit_can_be_stopped_and_goes_on(
    tiny_model_dir: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    # given
    for name in ("dialogues.jsonl", "features.f16"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    common = ["fit", "--model-dir", str(tiny_model_dir), "--folder", str(tmp_path), "--depth", "2"]

    # when
    assert train_draft.main([*common, "--minutes", "0.005"]) == 0
    first = capsys.readouterr().out
    assert train_draft.main([*common, "--minutes", "0.01"]) == 0

    # then
    second = capsys.readouterr().out
    held_out = split(Corpus(folder, hidden_size=HIDDEN).read())[1]
    assert f"held out: {len(held_out)} dialogues" in first
    assert "going on after" in second
    head = load_head(tmp_path / "eagle.safetensors", hidden_size=HIDDEN, vocab_size=VOCAB)
    assert head.shape.depth == 2


@pytest.mark.parametrize("count", [0, 2])
def test_too_little_to_train_on_is_said(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int
):
    # given
    if count:
        write(tiny_model_dir, tmp_path, count=count)
    common = ["--model-dir", str(tiny_model_dir), "--folder", str(tmp_path)]

    # when
    status = train_draft.main(["fit", *common])

    # then
    assert status == 1
    assert "`write` more first" in capsys.readouterr().err
