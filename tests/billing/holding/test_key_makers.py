"""What a key's keys use counts at its own caps: as it happens, after a drain, after a rebuild."""

import pytest

from billing.errors import LimitRefused
from billing.holding import key_makers
from billing.holding.holds import SpendScope
from billing.limits import quotas
from billing.limits.quotas import Cap
from billing.models import MadeKey
from billing.operations import rebuild
from tests.billing import desk as desks
from tests.billing.limits.test_quotas import cap
from tests.billing.open_books import Books

MAKER, MADE, GRANDCHILD, STRANGER = 5, 6, 7, 8
DAILY = SpendScope("key", str(MAKER), "day", 1_000_000)
COST_PICO = 100 * desks.INPUT_PICO + 10 * desks.OUTPUT_PICO


@pytest.fixture
def line(books: Books) -> Books:
    key_makers.record(tenant=books.tenant, api_key_id=MADE, maker_id=MAKER)
    key_makers.record(tenant=books.tenant, api_key_id=GRANDCHILD, maker_id=MADE)
    return books


def use(books: Books, key: int) -> None:
    """A request of a key whose hold did not know of the cap."""
    books.desk.key = key
    books.served()
    books.drain()


def test_a_line_is_kept_whole(line: Books) -> None:
    assert key_makers.makers(line.tenant.pk, GRANDCHILD) == (MADE, MAKER)
    assert key_makers.lines([line.tenant.pk]) == {
        (line.tenant.pk, MADE): (MAKER,),
        (line.tenant.pk, GRANDCHILD): (MADE, MAKER),
    }


def test_a_new_cap_knows_what_the_keys_keys_spent(line: Books) -> None:
    # given
    for key in (MAKER, MADE, GRANDCHILD, STRANGER):
        use(line, key)
    # when
    cap(line)
    # then
    assert line.desk.spend_register(DAILY) == (3 * COST_PICO // 1000, 0)
    assert line.check() == {}


def test_a_drain_and_a_rebuild_count_the_keys_keys(line: Books) -> None:
    # given a cap that no hold named
    cap(line)
    for key in (MADE, GRANDCHILD, STRANGER, MAKER):
        use(line, key)
    assert line.desk.spend_register(DAILY) == (3 * COST_PICO // 1000, 0)
    # when
    rebuild.rebuild(line.desk.client, line.shard, now=desks.at(line.desk.now_ms))
    line.adopt_epoch()
    # then
    assert line.desk.spend_register(DAILY) == (3 * COST_PICO // 1000, 0)
    assert line.check() == {}


def test_a_line_has_an_end(books: Books) -> None:
    # given
    for made in range(MAKER + 1, MAKER + 1 + key_makers.MAKERS_MAX):
        key_makers.record(tenant=books.tenant, api_key_id=made, maker_id=made - 1)
    count, last = MadeKey.objects.count(), MAKER + key_makers.MAKERS_MAX
    # then
    with pytest.raises(LimitRefused):
        key_makers.record(tenant=books.tenant, api_key_id=last + 1, maker_id=last)
    assert MadeKey.objects.count() == count


def test_who_may_not_loosen_a_cap_may_tighten_it(books: Books) -> None:
    # given
    known = cap(books, limit_pico=1_000_000)
    by_itself = {"tenant": books.tenant, "actor": "key", "now": desks.at(desks.NOON_MS)}
    terms = {"scope_kind": "key", "scope_id": "5", "window": "day"}
    looser = (
        lambda: quotas.set_quota(
            cap=Cap(**terms, limit_pico=1_000_001), may_loosen=False, **by_itself
        ),
        lambda: quotas.set_quota(
            cap=Cap(**terms, limit_pico=1_000_000, shadow=True), may_loosen=False, **by_itself
        ),
        lambda: quotas.remove_quota(quota_id=known.pk, may_loosen=False, **by_itself),
        lambda: quotas.raise_quota(
            quota_id=known.pk,
            limit_pico=2_000_000,
            until=desks.at(desks.NOON_MS + 1_000),
            may_loosen=False,
            **by_itself,
        ),
    )
    # then
    for loosen in looser:
        with pytest.raises(LimitRefused, match="does not loosen"):
            loosen()
    known.refresh_from_db()
    assert (known.limit_pico, known.shadow, known.raised_pico) == (1_000_000, False, None)
    quotas.set_quota(cap=Cap(**terms, limit_pico=999_999), may_loosen=False, **by_itself)
    known.refresh_from_db()
    assert known.limit_pico == 999_999
