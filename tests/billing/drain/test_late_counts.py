"""An expiry that is trued up once an engine has said what it delivered."""

from datetime import timedelta

import pytest

from billing import basis
from billing.drain import late_counts
from billing.errors import Cold
from billing.models import Account, UsageEvent
from billing.usage import CanonicalUsage
from tests.billing import desk as desks
from tests.billing.open_books import Books

DELIVERED = CanonicalUsage(input_tokens=100, output_tokens=40)
DELIVERED_PICO = 100 * desks.INPUT_PICO + 40 * desks.OUTPUT_PICO


def expired(books: Books, *, checkpoint: tuple[int, int] | None) -> UsageEvent:
    """A request whose owner was killed, before or after it had said what it delivered."""
    request_id = books.desk.placed(hold_nano=1_000_000)
    if checkpoint is not None:
        books.desk.checkpoint(
            request_id,
            usage=checkpoint,
            charge_nano=(checkpoint[0] * desks.INPUT_PICO + checkpoint[1] * desks.OUTPUT_PICO)
            // 1000,
        )
    books.desk.now_ms += 60_000
    books.desk.expire(request_id)
    books.drain()
    return UsageEvent.objects.get(request_id=request_id)


def lost(books: Books) -> list[UsageEvent]:
    since = desks.at(books.desk.now_ms) - timedelta(minutes=2)
    return list(late_counts.expired(offers=[1], since=since))


@pytest.mark.parametrize(("checkpoint", "booked_pico"), [(None, 0), ((100, 2), 216_000_000)])
def test_what_was_delivered_since_the_last_checkpoint_is_charged_after_all(
    books: Books, checkpoint: tuple[int, int] | None, booked_pico: int
) -> None:
    # given
    event = expired(books, checkpoint=checkpoint)
    before = (event.tenant_cost_pico, books.balance().spent_pico)
    found = lost(books)
    # when
    now = desks.at(books.desk.now_ms)
    settled = late_counts.settle(books.desk.client, event, DELIVERED, basis=basis.ENGINE, now=now)
    again = late_counts.settle(books.desk.client, event, DELIVERED, basis=basis.ENGINE, now=now)
    books.drain()
    # then
    assert before == (booked_pico, booked_pico)
    assert [each.pk for each in found] == [event.pk]
    assert (settled, again, lost(books)) == (True, True, [])
    late = UsageEvent.objects.get(request_id=event.request_id, attempt__gte=0)
    assert (late.state, late.usage_source, late.output_tokens) == ("posted", "engine", 40)
    assert late.tenant_cost_pico == DELIVERED_PICO - booked_pico
    assert books.balance().spent_pico == DELIVERED_PICO
    assert books.account(Account.Kind.SUPPLIER_EXPOSURE, supplier="acme") == 0
    assert books.account(Account.Kind.REVENUE) == -DELIVERED_PICO
    assert books.check() == {}


def test_a_checkpoint_that_was_too_much_is_given_back(books: Books) -> None:
    # given: an estimate of 50 output tokens, of which 40 were delivered
    event = expired(books, checkpoint=(100, 50))
    # when
    now = desks.at(books.desk.now_ms)
    late_counts.settle(books.desk.client, event, DELIVERED, basis=basis.ENGINE, now=now)
    books.drain()
    # then
    assert books.balance().spent_pico == DELIVERED_PICO
    assert books.check() == {}


def test_a_cold_shard_moves_nothing_and_is_tried_again(books: Books) -> None:
    # given
    event = expired(books, checkpoint=(100, 2))
    books.desk.client.delete(f"epoch:{books.desk.tag}")
    # when
    with pytest.raises(Cold):
        late_counts.settle(
            books.desk.client,
            event,
            DELIVERED,
            basis=basis.ENGINE,
            now=desks.at(books.desk.now_ms),
        )
    # then
    assert [each.pk for each in lost(books)] == [event.pk]
    assert event.tenant_cost_pico == 216_000_000
