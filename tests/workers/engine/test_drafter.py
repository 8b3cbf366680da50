"""The drafter over proposers that guess what a test tells them."""

from collections.abc import Sequence

from workers.engine.drafter import Drafter
from workers.engine.scheduler import Scheduled
from workers.engine.sequence import GenerationRequest, new_sequence
from workers.speculation.ngram import NgramProposer
from workers.speculation.policy import CostCurve
from workers.speculation.protocol import Ask, Draft, Evidence

CURVE = CostCurve([(1, 1.0), (8, 1.1), (16, 1.2)])
PROMPT = [1, 2, 3, 4, 5, 6, 7, 8, 9, 50]


class Guesser:
    runs_model = True

    def __init__(self, *tokens: int, certainty: int = 8) -> None:
        self.tokens, self.certainty = list(tokens), certainty

    def propose(self, asks: Sequence[Ask]) -> list[Draft]:
        guesses = [self.tokens[: ask.limit] for ask in asks]
        return [
            Draft(tokens, [Evidence("eagle", self.certainty, d) for d in range(len(tokens))])
            for tokens in guesses
        ]

    def forget(self, key: str) -> None: ...


def drafter_of(guesser: Guesser) -> Drafter:
    lookup = NgramProposer(shortest=1, longest=4)
    return Drafter({"ngram": lookup, "eagle": guesser}, curve=CURVE, max_length=8, model_depth=2)


def sequence_of(tokens: list[int]):
    """Of a request that has said one token, the last."""
    request = GenerationRequest(request_id="r", prompt=tokens[:-1], max_tokens=30)
    sequence = new_sequence(request, arrived_at=0.0)
    sequence.tokens.append(tokens[-1])
    sequence.num_computed = len(tokens) - 1
    return sequence


def assign(drafter: Drafter, sequence) -> list[int]:
    drafter.assign([Scheduled(sequence, 1)], grow=lambda _, length: length)
    return sequence.draft


def test_a_guess_may_lead_back_into_a_copy():
    # given: the last token stands nowhere else, and the model would say 3 next
    drafter, sequence = drafter_of(Guesser(3)), sequence_of(PROMPT)

    # then: behind the guess the prompt goes on
    assert assign(drafter, sequence)[:3] == [3, 4, 5]


def test_a_guess_behind_which_nothing_is_known_stands_alone():
    assert assign(drafter_of(Guesser(77, 78)), sequence_of(PROMPT)) == [77, 78]


def test_what_was_only_guessed_is_not_remembered_as_text():
    # given
    drafter, sequence = drafter_of(Guesser(77, 78)), sequence_of(PROMPT)
    assert assign(drafter, sequence) == [77, 78]

    # when: neither guess came
    drafter.learn(sequence, [60])
    sequence.tokens += [60]
    sequence.num_computed += 1
    drafter._model = None

    # then
    sequence.tokens += [77]
    assert assign(drafter, sequence) == []


def test_borrowed_guesses_are_judged_once_and_the_rest_by_their_own_kind():
    # given
    drafter, sequence = drafter_of(Guesser(3)), sequence_of(PROMPT)
    assign(drafter, sequence)
    guess, match = Evidence("eagle", 8, 0), Evidence("ngram", 1, 0)
    before = dict(drafter._priors)

    # when: the guess came, what followed it was something else
    drafter.learn(sequence, [3, 60])

    # then
    assert drafter._priors[guess] == before[guess] + 0.02 * (1 - before[guess])
    assert drafter._priors[match] == before[match] - 0.02 * before[match]


def test_behind_a_wrong_guess_nothing_is_judged():
    # given
    drafter, sequence = drafter_of(Guesser(3)), sequence_of(PROMPT)
    assert assign(drafter, sequence)[:2] == [3, 4]
    match = Evidence("ngram", 1, 0)
    before = drafter._priors[match]

    # when
    drafter.learn(sequence, [60])

    # then
    assert drafter._priors[match] == before
