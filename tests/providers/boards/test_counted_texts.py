"""Counted texts on their way from events to all processes: kept per offer, bounded, once."""

from collections.abc import Iterable, Iterator

import pytest
import redis

from billing import samples
from billing.drain import metering
from billing.samples import Sample, Samples, unpacked
from providers.boards import counted_texts, measurements
from providers.models import CountedTexts, Offer
from tests.providers.made_offers import NOW, attempt, make_offer, post

pytestmark = pytest.mark.django_db(transaction=True)


def taught(tenant: int, count: int, *, size: int = 40) -> Iterator[Sample]:
    for number in range(count):
        yield Sample((number, *(0,) * 12), size, 10, tenant)


def served(redis_client: redis.Redis, offer: Offer, taught: Iterable[Sample], nr: int) -> None:
    event = attempt(offer, nr)
    event.detail.taught = tuple(taught)
    post(event)
    measurements.record(now=NOW)


def kept(offer: Offer) -> list[Sample]:
    return unpacked(bytes(CountedTexts.objects.get(offer=offer).samples))


@pytest.fixture
def offer(redis_client: redis.Redis) -> Offer:
    metering.ensure_groups(redis_client)
    return make_offer("acme/a", model="a")


def test_each_is_taken_up_once_and_told_once(redis_client: redis.Redis, offer: Offer) -> None:
    # given
    other = make_offer("beta/a", model="a")
    served(redis_client, offer, taught(1, 3), 0)
    told, upto = counted_texts.changed(0)
    # when
    measurements.record(now=NOW)
    served(redis_client, other, taught(2, 2), 1)
    later, newest = counted_texts.changed(upto)
    # then
    assert {key: unpacked(data) for key, data in told.items()} == {
        ("a", "acme/a"): list(taught(1, 3))
    }
    assert {key: unpacked(data) for key, data in later.items()} == {
        ("a", "beta/a"): list(taught(2, 2))
    }
    assert kept(offer) == list(taught(1, 3))
    assert counted_texts.changed(newest) == ({}, newest)


def test_one_tenant_s_flood_leaves_the_others_what_they_taught(
    redis_client: redis.Redis, offer: Offer
) -> None:
    # given
    served(redis_client, offer, taught(1, 5), 0)
    # when
    for number in range(1, 9):
        served(redis_client, offer, taught(2, 100), number)
    # then
    assert [each for each in kept(offer) if each.tenant == 1] == list(taught(1, 5))
    assert len(kept(offer)) == 5 + samples.SAMPLES_OF_TENANT_MAX


def test_an_offer_s_row_is_bounded_in_rows_and_bytes() -> None:
    bulk = [Sample((10**7,) * 13, 10**7, 10**7, tenant) for tenant in range(1_000)]

    assert len(Samples(bulk)) == samples.SAMPLES_MAX
    assert len(samples.packed(list(Samples(bulk)))) < 32 * 1024


def test_what_another_release_wrote_is_learned_anew(
    redis_client: redis.Redis, offer: Offer
) -> None:
    # given
    CountedTexts.objects.create(offer=offer, samples=b"\xc1 what is this", event_id=0)
    # when
    served(redis_client, offer, taught(1, 2), 0)
    # then
    assert kept(offer) == list(taught(1, 2))


def test_answers_that_teach_nothing_write_nothing(redis_client: redis.Redis, offer: Offer) -> None:
    served(redis_client, offer, [], 0)

    assert not CountedTexts.objects.exists()
