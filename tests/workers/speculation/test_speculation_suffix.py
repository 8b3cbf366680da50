from workers.speculation.protocol import Ask, Draft
from workers.speculation.suffix import SuffixProposer

ANSWER = [1, 2, 3, 4, 5, 6, 7, 8, 9]


def memory(*answers: list[int], salt: str = "t", max_tokens: int = 1000) -> SuffixProposer:
    proposer = SuffixProposer(max_tokens=max_tokens)
    for answer in answers:
        proposer.remember(salt, answer, 0)
    return proposer


def propose(proposer: SuffixProposer, tokens: list[int], *, limit: int = 4, salt: str = "t"):
    ask = Ask(key="a", salt=salt, tokens=tokens, limit=limit, block_ids=[])
    [draft] = proposer.propose([ask])
    return draft


def test_what_followed_in_an_earlier_answer_is_proposed():
    assert propose(memory(ANSWER), [50, 2, 3, 4]).tokens == [5, 6, 7, 8]


def test_nothing_crosses_from_one_tenant_to_another():
    assert propose(memory(ANSWER), [50, 2, 3, 4], salt="other") == Draft()


def test_an_unknown_ending_gives_no_draft():
    assert propose(memory(ANSWER), [2, 3, 5]) == Draft()


def test_the_place_that_matches_longest_decides():
    # given
    proposer = memory([9, 8, 1, 2, 3, 70], [5, 5, 1, 2, 3, 60])

    # then
    assert propose(proposer, [9, 8, 1, 2, 3], limit=1).tokens == [70]
    assert propose(proposer, [5, 5, 1, 2, 3], limit=1).tokens == [60]


def test_places_vote_and_agreement_is_evidence_of_its_own():
    # given
    split = memory([1, 2, 3, 70, 71], [1, 2, 3, 70, 72], [1, 2, 3, 60, 61])
    agreed = memory([1, 2, 3, 70], [1, 2, 3, 70], [1, 2, 3, 70])

    # when
    unsure, sure = propose(split, [1, 2, 3], limit=1), propose(agreed, [1, 2, 3], limit=1)

    # then
    assert unsure.tokens == sure.tokens == [70]
    assert unsure.evidence[0].strength < sure.evidence[0].strength


def test_the_end_of_the_prompt_leads_to_the_answer():
    # given: the prompt ends with 7, 8, 9
    proposer = SuffixProposer(max_tokens=1000)
    proposer.remember("t", [4, 5, 6, 7, 8, 9, 10, 11, 12], 6)

    # then
    assert propose(proposer, [30, 7, 8, 9]).tokens == [10, 11, 12]
    assert propose(proposer, [30, 5, 6, 7]) == Draft()


def test_memory_is_bounded_and_the_oldest_goes_first():
    # given
    proposer = memory(max_tokens=60)

    # when
    for number in range(100):
        proposer.remember("t", [number * 100 + i for i in range(20)], 0)

    # then
    assert proposer.remembered_tokens == 60
    assert propose(proposer, [9600, 9601, 9602]) == Draft()
    assert propose(proposer, [9700, 9701, 9702]).tokens == [9703, 9704, 9705, 9706]


def test_the_tenant_that_was_away_longest_is_forgotten_first():
    # given
    proposer = SuffixProposer(max_tokens=27)
    for salt in ("a", "b", "c"):
        proposer.remember(salt, ANSWER, 0)
    propose(proposer, [1, 2, 3], salt="a")

    # when
    proposer.remember("d", ANSWER, 0)

    # then
    assert propose(proposer, [1, 2, 3], salt="a").tokens == [4, 5, 6, 7]
    assert propose(proposer, [1, 2, 3], salt="b") == Draft()


def test_what_is_forgotten_leaves_no_trace():
    # given
    proposer = memory(max_tokens=20)

    # when
    for number in range(50):
        proposer.remember(f"tenant {number}", ANSWER, 0)

    # then
    assert len(proposer._tenants) == 2
    assert sum(len(tenant.places) for tenant in proposer._tenants.values()) == 12


def test_an_answer_longer_than_the_memory_is_not_kept():
    assert memory(list(range(2000))).remembered_tokens == 0
