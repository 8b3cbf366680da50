"""One registry of outcomes: whoever tells one, or judges by one, finds it there."""

import pytest

from billing import outcomes
from billing.outcomes import OUTCOMES, Verdict


def test_whose_doing_each_end_is() -> None:
    assert {name: outcome.verdict for name, outcome in OUTCOMES.items()} == {
        "ok": Verdict.SERVED,
        "stopped": Verdict.SERVED,
        "client_cancelled": Verdict.LEFT,
        "client_stalled": Verdict.LEFT,
        "upstream_error": Verdict.FAILED,
        "upstream_cut": Verdict.FAILED,
        "refused": Verdict.REFUSED,
        "deadline": Verdict.FAILED,
        "gateway_error": Verdict.OURS,
        "unknown": Verdict.UNKNOWN,
    }


def test_every_name_of_the_module_is_in_the_registry() -> None:
    named = {
        value for name, value in vars(outcomes).items() if name.isupper() and name != "OUTCOMES"
    }
    assert named == set(OUTCOMES)


def test_a_long_answer_is_nobodys_failure() -> None:
    assert outcomes.verdict_of("deadline", was_answering=False) is Verdict.FAILED
    assert outcomes.verdict_of("deadline", was_answering=True) is Verdict.UNKNOWN
    assert outcomes.verdict_of("upstream_cut", was_answering=True) is Verdict.FAILED


@pytest.mark.parametrize("name", ["", "of_an_older_version"])
def test_what_nobody_knows_any_more_is_told_as_it_is(name: str) -> None:
    told = outcomes.of(name)
    assert (told.verdict, told.words) == (Verdict.UNKNOWN, name.replace("_", " "))
