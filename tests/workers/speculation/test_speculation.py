import pytest

from workers.speculation.matching import MATCH_MAX, lookup_evidence
from workers.speculation.ngram import NgramProposer
from workers.speculation.policy import (
    Acceptance,
    CostCurve,
    DraftCost,
    StepCosts,
    draft_depth,
    draft_lengths,
)
from workers.speculation.protocol import Ask, Draft

FREE = CostCurve([(1, 1.0), (64, 1.0)])
LINEAR = CostCurve([(1, 1.0), (64, 64.0)])


def proposer() -> NgramProposer:
    return NgramProposer(shortest=2, longest=4)


def propose(ngram: NgramProposer, tokens: list[int], limit: int, *, key: str = "a") -> Draft:
    [draft] = ngram.propose([Ask(key=key, salt="", tokens=tokens, limit=limit, block_ids=[])])
    return draft


def test_what_followed_last_time_is_proposed():
    # given
    tokens = [1, 2, 3, 4, 5, 9, 1, 2, 3]

    # when
    draft = propose(proposer(), tokens, 3)

    # then
    assert draft.tokens == [4, 5, 9]
    assert draft.evidence[0].strength == 3


def test_a_guess_has_the_evidence_of_the_match_that_its_predecessors_would_make():
    # given: both end alike, one behind three tokens that stood there before, one behind four
    shorter = propose(proposer(), [1, 2, 3, 4, 5, 9, 1, 2, 3], 3)
    longer = propose(proposer(), [1, 2, 3, 4, 5, 9, 1, 2, 3, 4], 2)

    # then
    assert shorter.tokens[1:] == longer.tokens
    assert shorter.evidence[1:] == longer.evidence


def test_evidence_ends_growing_with_the_longest_match_that_is_looked_for():
    evidence = lookup_evidence("ngram", MATCH_MAX - 1, 40)
    assert len(evidence) == 40
    assert evidence[0].strength < evidence[1].strength
    assert set(evidence[1:]) == {evidence[1]}


def test_the_latest_of_equally_good_places_wins():
    assert propose(proposer(), [1, 2, 7, 1, 2, 8, 1, 2], 1).tokens == [8]


def test_the_place_that_matches_longest_decides():
    # given: a later place matches four tokens, an earlier one five
    later, earlier = [2, 3, 4, 5, 60], [1, 2, 3, 4, 5, 70]

    # then
    assert propose(proposer(), [*earlier, *later, 1, 2, 3, 4, 5], 1).tokens == [70]


def test_places_vote_for_each_next_token():
    # given
    split = [1, 2, 7, 8, 30, 1, 2, 7, 9, 31, 1, 2, 6, 5, 32, 1, 2]

    # when
    draft = propose(proposer(), split, 3)

    # then: of the two that said 7, the later one is followed
    assert draft.tokens == [7, 9, 31]


def test_places_that_agree_are_evidence_of_another_kind():
    # given
    agreed, split = [1, 2, 7, 0, 1, 2, 7, 5, 1, 2], [1, 2, 7, 0, 1, 2, 8, 5, 1, 2]

    # when
    sure, unsure = propose(proposer(), agreed, 1), propose(proposer(), split, 1)

    # then
    assert sure.evidence[0].strength > unsure.evidence[0].strength
    assert propose(proposer(), agreed[4:], 1).evidence[0].strength < unsure.evidence[0].strength


def test_a_text_without_repetition_gives_no_draft():
    assert propose(proposer(), [1, 2, 3, 4, 5], 4).tokens == []


def test_a_single_common_token_is_not_evidence():
    assert propose(proposer(), [1, 2, 3, 1], 4).tokens == []


def test_a_loop_is_proposed_to_go_on():
    assert propose(proposer(), [7, 8, 7, 8, 7, 8], 5).tokens == [7, 8, 7, 8, 7]


def test_a_longer_match_is_better_evidence():
    # given
    phrase = list(range(20))

    # when
    short = propose(proposer(), [*phrase, 90, 18, 19], 1)
    long = propose(proposer(), [*phrase, 90, *phrase], 1)

    # then
    assert short.tokens == long.tokens == [90]
    assert short.evidence[0].strength < long.evidence[0].strength


def test_requests_do_not_find_each_others_texts():
    # given
    ngram = proposer()
    propose(ngram, [1, 2, 3, 4, 5], 4, key="a")

    # then
    assert propose(ngram, [9, 1, 2, 3], 4, key="b").tokens == []


def test_a_text_that_grows_is_indexed_as_it_grows():
    # given
    grown = proposer()
    propose(grown, [1, 2, 3], 4)

    # when
    draft = propose(grown, [1, 2, 3, 4, 5, 6, 1, 2], 2)

    # then
    assert draft.tokens == propose(proposer(), [1, 2, 3, 4, 5, 6, 1, 2], 2).tokens == [3, 4]


def test_the_curve_is_linear_between_points_and_beyond():
    # given
    curve = CostCurve([(1, 1.0), (2, 3.0), (4, 4.0)])

    # then
    assert [curve.seconds(tokens) for tokens in (1, 2, 3, 4, 6)] == [1.0, 3.0, 3.5, 4.0, 5.0]


def test_a_step_that_took_longer_than_a_longer_one_was_disturbed():
    # given
    curve = CostCurve([(1, 1.0), (2, 9.0), (4, 1.5), (8, 2.0)])

    # then
    assert [curve.seconds(tokens) for tokens in (1, 2, 4, 8)] == [1.0, 1.5, 1.5, 2.0]


def test_the_curve_takes_the_fastest_of_timings_that_take_turns():
    # given: two rounds over both sizes, each of which another program disturbs once
    sizes = []
    timings = iter([5.0, 3.0, 1.0, 9.0])

    def time_step(tokens: int) -> float:
        sizes.append(tokens)
        return next(timings)

    # when
    curve = CostCurve.measured(time_step, limit=2, seconds=0.0)

    # then
    assert sizes == [1, 2] * 2
    assert (curve.seconds(1), curve.seconds(2)) == (1.0, 3.0)


def lengths(candidates: list[tuple[float, int]], curve: CostCurve, *, others: int = 0) -> list[int]:
    sampling = len(candidates)
    chances = [[rate ** (depth + 1) for depth in range(length)] for rate, length in candidates]
    step = StepCosts(base_tokens=sampling + others, sampling=sampling, curve=curve)
    return draft_lengths(chances, step)


def test_free_steps_send_whole_drafts():
    assert lengths([(0.9, 8)], FREE) == [8]


def test_steps_that_cost_as_much_as_they_give_send_nothing():
    assert lengths([(0.99, 8)], LINEAR) == [0]


def test_a_hopeless_draft_is_not_sent():
    assert lengths([(0.0, 8)], CostCurve([(1, 1.0), (8, 1.1)])) == [0]


def test_length_grows_with_acceptance():
    # given
    curve = CostCurve([(1, 1.0), (2, 1.05), (4, 1.1), (8, 1.4), (16, 1.9)])

    # when
    chosen = [lengths([(rate, 8)], curve)[0] for rate in (0.02, 0.2, 0.5, 0.9)]

    # then
    assert chosen == sorted(chosen)
    assert chosen[0] == 0
    assert chosen[-1] >= 6


def test_the_likelier_request_gets_the_room():
    # given: five tokens are free, the sixth is dear
    curve = CostCurve([(1, 1.0), (6, 1.0), (7, 9.0), (32, 90.0)])

    # then
    assert lengths([(0.9, 4), (0.2, 4)], curve) == [4, 0]


STEEP = CostCurve([(1, 1.0), (2, 1.05), (4, 1.1), (8, 1.4), (16, 1.9)])


def depth(rate: float, cost: DraftCost, *, requests: int = 1) -> int:
    chances = [[rate ** (depth + 1) for depth in range(4)]] * requests
    step = StepCosts(base_tokens=requests, sampling=requests, curve=STEEP)
    return draft_depth(chances, step, cost)


def test_a_proposer_that_is_not_known_yet_is_tried():
    assert depth(0.9, DraftCost()) == 4


def test_a_proposer_is_asked_as_deep_as_its_time_pays():
    # given: a guess costs a twentieth of a step, and a third
    cheap, dear = DraftCost(), DraftCost()
    cheap.learn(1, 4, 0.2)
    dear.learn(1, 4, 4 / 3)

    # then
    assert depth(0.7, cheap) == 3
    assert depth(0.2, cheap) == 1
    assert depth(0.05, cheap) == 0
    assert depth(0.2, dear) == 0


def test_the_cost_of_a_proposer_follows_what_is_measured():
    # given
    cost = DraftCost()
    cost.learn(1, 2, 1.0)
    for _ in range(100):
        cost.learn(1, 2, 3.0)

    # then
    assert cost.seconds(1, 4) == pytest.approx(6.0, rel=0.01)


def test_a_full_step_leaves_no_room_for_a_dear_proposer():
    # given
    cost = DraftCost()
    cost.learn(8, 4, 0.8)

    # then
    assert depth(0.4, cost, requests=8) == 0


def test_a_draft_that_was_not_sent_teaches_as_well():
    # given
    acceptance = Acceptance(priors={})
    for _ in range(40):
        acceptance.learn(evidence=[2, 2], draft=[1, 2], emitted=[9])
    fallen = acceptance.rate(2)

    # when
    for _ in range(40):
        acceptance.learn(evidence=[2, 2], draft=[1, 2], emitted=[1])

    # then
    assert fallen < 0.01
    assert acceptance.rate(2) > 0.9


def test_tokens_after_the_first_wrong_one_teach_nothing():
    # given
    acceptance, reference = Acceptance(priors={}), Acceptance(priors={})

    # when
    acceptance.learn(evidence=[2, 2, 2], draft=[1, 2, 3], emitted=[1, 9, 3])
    reference.learn(evidence=[2, 2], draft=[1, 2], emitted=[1, 9])

    # then
    assert acceptance.rate(2) == reference.rate(2)


def test_kinds_of_evidence_are_learned_apart_and_new_requests_start_from_all_others():
    # given
    priors: dict[int, float] = {}
    veteran = Acceptance(priors=priors)
    for _ in range(300):
        veteran.learn(evidence=[4], draft=[1], emitted=[1])
        veteran.learn(evidence=[2], draft=[1], emitted=[2])

    # when
    newcomer = Acceptance(priors=priors)

    # then
    assert newcomer.rate(4) == pytest.approx(1.0, abs=0.01)
    assert newcomer.rate(2) == pytest.approx(0.0, abs=0.01)
    assert newcomer.rate(3) == 0.5
