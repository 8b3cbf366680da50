from pathlib import Path

import pytest

from tests.workers.engines import write_tiny_model
from workers.config import DEFAULT_MODEL_DIR, DEFAULT_PHRASES
from workers.speculation.phrases import (
    DEPTH_MAX,
    Next,
    PhraseProposer,
    UnusablePhrases,
    count_phrases,
    load_phrases,
    save_phrases,
)
from workers.speculation.protocol import Ask, Draft
from workers.text.tokenizer import Tokenizer

TABLE = {(1,): Next(2, 4), (7, 1): Next(3, 9), (3,): Next(4, 5), (4,): Next(5, 2)}


def propose(tokens: list[int], *, limit: int = 4, table: dict = TABLE) -> Draft:
    ask = Ask(key="a", salt="", tokens=tokens, limit=limit, block_ids=[])
    [draft] = PhraseProposer(table).propose([ask])
    return draft


def test_the_longest_known_phrase_decides():
    assert propose([9, 1], limit=1).tokens == [2]
    assert propose([7, 1], limit=1).tokens == [3]


def test_a_guess_goes_on_from_the_guesses_before_it():
    # when
    draft = propose([7, 1])

    # then
    assert draft.tokens == [3, 4, 5]
    assert [evidence.strength for evidence in draft.evidence] == [9, 5, 2]


def test_an_unknown_ending_gives_no_draft():
    assert propose([1, 9]) == Draft()


def test_no_more_is_guessed_than_is_asked_for_and_never_far():
    loop = {(1,): Next(1, 9)}
    assert propose([1], limit=2, table=loop).tokens == [1, 1]
    assert propose([1], limit=16, table=loop).tokens == [1] * DEPTH_MAX


def test_what_is_frequent_and_mostly_goes_on_alike_is_counted():
    # given: after 1 comes 2 in six of eight cases; after 8, something else each time
    texts = [[1, 2]] * 6 + [[1, 3]] * 2 + [[8, number] for number in range(20, 30)]

    # when
    table = count_phrases(texts)

    # then
    assert table == {(1,): Next(2, 6)}


def test_phrases_have_up_to_three_tokens():
    # when
    table = count_phrases([[1, 2, 3, 4, 5]] * 20)

    # then
    assert {phrase for phrase, known in table.items() if known.token == 5} == {
        (4,),
        (3, 4),
        (2, 3, 4),
    }


def test_a_table_is_the_same_after_writing_and_reading(tmp_path: Path):
    # given
    tokenizer = Tokenizer(write_tiny_model(tmp_path))

    # when
    for table in (TABLE, {}):
        save_phrases(tmp_path / "phrases.npz", table, tokenizer)

        # then
        loaded = load_phrases(tmp_path / "phrases.npz", tokenizer)
        assert dict(loaded) == table
        assert len(loaded) == len(table)
        assert all(loaded.get(phrase) == known for phrase, known in table.items())
        assert loaded.get((1, 2, 3)) is None


def test_what_is_no_table_is_refused(tmp_path: Path):
    # given
    tokenizer = Tokenizer(write_tiny_model(tmp_path))
    (tmp_path / "text.npz").write_text("no table")

    # then
    for name in ("text.npz", "missing.npz"):
        with pytest.raises(UnusablePhrases, match="is not a table of phrases"):
            load_phrases(tmp_path / name, tokenizer)


def test_the_table_that_comes_with_the_engine_is_of_its_default_model():
    # when
    tokenizer = Tokenizer(DEFAULT_MODEL_DIR)
    table = load_phrases(DEFAULT_PHRASES, tokenizer)

    # then
    [after_here_to] = tokenizer.encode(" help")
    known = table.get(tuple(tokenizer.encode(" here to")))
    assert known is not None
    assert known.token == after_here_to
