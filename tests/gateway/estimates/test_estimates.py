"""Tokens of texts that nobody counted: learned from what an offer counted for others."""

import random
from collections.abc import Iterator

import msgspec
import pytest

from billing import basis
from billing.samples import SAMPLES_MAX, Sample, packed
from gateway.estimates import ratios, text_features
from gateway.estimates.ratios import Estimate, Ratios
from tests.factories import openai_request

WORDS = ["fox", "jumps", "lazily", "over", "the", "quick", "brown", "dogs", "window", "of"]


class Clock:
    """Moves on by itself, so that every look may fit anew."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 10
        return self.now


@pytest.fixture
def measured() -> Ratios:
    return Ratios(Clock())


def prose(words: int, rng: random.Random) -> bytes:
    return " ".join(rng.choices(WORDS, k=words)).encode()


def sample(text: bytes, tokens: int, *, tenant: int = 1, chunks: int = 0) -> Sample:
    return Sample(text_features.of_text(text), len(text), tokens, tenant, chunks)


def samples(count: int, *, per_word: int, tenant: int = 1) -> Iterator[Sample]:
    rng = random.Random(tenant)
    for _ in range(count):
        words = rng.randint(10, 60)
        yield sample(prose(words, rng), per_word * words, tenant=tenant)


def estimate(known: Ratios, text: bytes, *, sku: str = "a/fox", tenant: int = 9) -> Estimate:
    return known.estimate("fox", sku, tenant, text_features.of_text(text), size=len(text))


def test_without_a_measurement_four_bytes_are_a_token(measured: Ratios) -> None:
    shape = text_features.of_text(b"x" * 41, messages=2, requests=1)

    found = measured.estimate("fox", "a/fox", 1, shape, size=41)

    assert found == Estimate(11 + 2 * 4 + 3, basis.BYTES)


def test_the_first_call_of_a_tenant_rests_on_what_others_were_counted(measured: Ratios) -> None:
    # given: a tokenizer with a token a word
    for each in samples(20, per_word=1):
        measured.learn("fox", "a/fox", each)
    # when
    found = estimate(measured, prose(200, random.Random(7)), tenant=2)
    # then
    assert found.basis == basis.MEASURED
    assert found.tokens == pytest.approx(200, rel=0.03)


def test_another_seller_of_the_model_is_measured_by_it_until_it_counted_itself(
    measured: Ratios,
) -> None:
    # given
    for each in samples(20, per_word=1):
        measured.learn("fox", "a/fox", each)
    text = prose(200, random.Random(7))
    # when
    before = estimate(measured, text, sku="b/fox")
    for each in samples(20, per_word=2):
        measured.learn("fox", "b/fox", each)
    after = estimate(measured, text, sku="b/fox")
    # then: and what it counts moves no estimate at the other
    assert before.tokens == pytest.approx(200, rel=0.03)
    assert after.tokens == pytest.approx(400, rel=0.03)
    assert estimate(measured, text).tokens == before.tokens
    assert measured.estimate(
        "wolf", "c/wolf", 1, text_features.of_text(text), size=len(text)
    ).basis == (basis.BYTES)


def test_one_tenant_s_flood_does_not_move_the_others(measured: Ratios) -> None:
    # given: four tenants with few answers, and one with many of three times the tokens
    for tenant in (1, 2, 3, 4):
        for each in samples(6, per_word=1, tenant=tenant):
            measured.learn("fox", "a/fox", each)
    for each in samples(1000, per_word=3, tenant=5):
        measured.learn("fox", "a/fox", each)
    text = prose(200, random.Random(7))
    # when
    others, own = estimate(measured, text, tenant=1), estimate(measured, text, tenant=5)
    # then: a known tenant is measured by its own answers, a new one by a fifth of the flood
    assert others.tokens == pytest.approx(200, rel=0.15)
    assert own.tokens > 2 * 200
    assert estimate(measured, text, tenant=9).tokens < 1.7 * 200


@pytest.mark.parametrize("tokens", [0, 1, 10_000])
def test_what_no_tokenizer_counts_teaches_nothing(measured: Ratios, tokens: int) -> None:
    for _ in range(50):
        assert not measured.learn("fox", "a/fox", sample(b"the quick brown fox jumps", tokens))

    assert estimate(measured, b"x" * 40) == Estimate(10, basis.BYTES)


def test_a_seller_that_streams_a_token_a_chunk_is_counted_by_its_chunks(measured: Ratios) -> None:
    # given: and one token for the end of the answer, which brings no text
    rng = random.Random(3)
    for _ in range(10):
        measured.learn("fox", "a/fox", sample(prose(30, rng), 41, chunks=40))
    text = b" internationalisation" * 40
    # when
    found = measured.estimate(
        "fox", "a/fox", 1, text_features.of_text(text), size=len(text), chunks=40
    )
    # then
    assert found == Estimate(40, basis.MEASURED)


def test_an_estimate_lies_within_what_a_tokenizer_can_do(measured: Ratios) -> None:
    for each in samples(20, per_word=3):
        measured.learn("fox", "a/fox", each)

    assert estimate(measured, b"").tokens == 0
    assert 1 <= estimate(measured, b"{" * 100).tokens <= 100
    assert 100 <= estimate(measured, b" " * 1600).tokens <= 1600


def test_it_is_taught_at_once_while_little_is_known_and_seldom_afterwards() -> None:
    # given
    now = [0.0]
    measured = Ratios(lambda: now[0])
    for tenant in range(8):
        for each in samples(8, per_word=1, tenant=tenant):
            assert measured.wants("fox", "a/fox", tenant)
            measured.learn("fox", "a/fox", each)
    # when / then
    assert not measured.wants("fox", "a/fox", 1)
    assert measured.wants("fox", "a/fox", 99)  # a tenant that it does not know yet
    now[0] += ratios.EVERY_S
    assert measured.wants("fox", "a/fox", 1)


def test_a_house_of_one_tenant_is_not_taught_by_each_of_its_answers() -> None:
    now = [0.0]
    measured = Ratios(lambda: now[0])
    for each in samples(200, per_word=1, tenant=1):
        if measured.wants("fox", "a/fox", 1):
            measured.learn("fox", "a/fox", each)
            now[0] += 0.01

    assert now[0] < 1
    assert not measured.wants("fox", "a/fox", 1)


def test_what_all_learned_comes_in_place_of_what_one_knew_but_is_on_its_way_to_them() -> None:
    # given: another process' twelve, and one of our own that nobody else has seen
    now = [0.0]
    measured = Ratios(lambda: now[0])
    theirs, own = list(samples(12, per_word=1)), sample(b"the quick brown fox", 4, tenant=3)
    measured.learn("fox", "a/fox", own)
    # when
    measured.share({("fox", "a/fox"): packed(theirs)})
    beside = measured._known("fox", "a/fox")
    assert beside is not None
    before = list(beside.samples)
    # then: it stands beside them until it is among them, or does not come any more
    assert before == [*theirs, own]
    measured.share({("fox", "a/fox"): packed([own, *theirs])})
    measured._known("fox", "a/fox")
    assert list(beside.samples) == [own, *theirs]
    measured.learn("fox", "a/fox", own._replace(tokens=5))
    now[0] += 2 * ratios.UNSHARED_S
    measured.share({("fox", "a/fox"): packed([own, *theirs])})
    measured._known("fox", "a/fox")
    assert list(beside.samples) == [own, *theirs]
    assert not beside.unshared


def test_a_process_that_was_told_estimates_as_the_one_that_learned(measured: Ratios) -> None:
    # given
    learned = list(samples(20, per_word=3))
    for each in learned:
        measured.learn("fox", "a/fox", each)
    text = prose(200, random.Random(7))
    # when
    told = Ratios(Clock())
    told.share({("fox", "a/fox"): packed(learned)})
    # then
    assert estimate(told, text) == estimate(measured, text)
    assert estimate(told, text, sku="new/fox") == estimate(measured, text, sku="new/fox")
    assert estimate(told, text).basis == basis.MEASURED


def test_one_seller_does_not_say_alone_what_another_s_text_is(measured: Ratios) -> None:
    # given: the one that counts threefold has the most answers
    for seller in ("honest/fox", "fair/fox"):
        for each in samples(10, per_word=1):
            measured.learn("fox", seller, each)
    for each in samples(40, per_word=3):
        measured.learn("fox", "greedy/fox", each)
    # when
    found = estimate(measured, prose(200, random.Random(7)), sku="new/fox")
    # then
    assert found.tokens == pytest.approx(200, rel=0.03)


def test_an_offer_of_many_tenants_is_taught_no_oftener_than_others() -> None:
    measured = Ratios(lambda: 0.0)
    for tenant in range(150):
        for each in samples(1, per_word=1, tenant=tenant):
            measured.learn("fox", "a/fox", each)

    assert not measured.wants("fox", "a/fox", 1)
    assert not measured.wants("fox", "a/fox", 999)


def test_what_is_kept_is_bounded(measured: Ratios) -> None:
    for tenant in range(50):
        for each in samples(60, per_word=1, tenant=tenant):
            measured.learn("fox", "a/fox", each)
    for number in range(ratios.OFFERS_MAX + 5):
        measured.learn("fox", f"s{number}/fox", sample(b"the quick brown", 3))

    assert len(measured._offers) == ratios.OFFERS_MAX
    assert max(len(offer.samples) for offer in measured._offers.values()) <= SAMPLES_MAX


@pytest.mark.parametrize(
    ("content", "size"),
    [
        ("狐狸", 6),
        ([{"type": "text", "text": "fox"}, {"type": "text", "text": "es"}], 6),
        ([{"type": "text", "text": "fox"},
          {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 900}}], 3),
        ([{"type": "tool_use", "id": "t", "name": "cut", "input": {"a": 1}}], 11),
        ([{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}]}],
         1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("escaped", [True, False])
def test_a_prompt_is_its_text_whatever_the_json_around_it(
    content: object, size: int, escaped: bool
) -> None:
    # given
    raw = msgspec.json.encode([{"role": "user", "content": content}])
    if escaped:
        raw = raw.decode().encode("ascii", "backslashreplace")
    request = openai_request()
    request.fields = {"messages": msgspec.Raw(raw)}
    # when / then
    assert text_features.of_request(request)[1] == size
