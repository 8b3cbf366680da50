"""What calls used so far, counted from new events only."""

from billing.holding import call_profiles
from billing.holding.call_profiles import EDGES, used_of
from billing.models import CallCount, CallMark, CallProfile, UsageEvent
from tests.billing import desk as desks
from tests.billing.open_books import Books


def refreshed(books: Books) -> int:
    books.drain()
    # A run counts a bounded number of ids, and other tests may have used up many.
    first = UsageEvent.objects.earliest("pk").pk
    CallMark.objects.get_or_create(pk=1, defaults={"last_event_id": first - 1})
    return call_profiles.refresh(now=desks.at(books.desk.now_ms))


def test_a_percentile_is_the_upper_edge_of_its_bucket() -> None:
    counts = {bucket: (1, EDGES[bucket - 1]) for bucket in range(1, 101)}
    used = used_of(counts)
    assert (used.calls, used.p95, used.p99) == (100, EDGES[95] - 1, EDGES[99] - 1)
    assert used_of({}, unknown=1000).p99 == 1000


def test_every_edge_is_at_most_a_tenth_above_the_one_before() -> None:
    pairs = zip(EDGES, EDGES[1:], strict=False)
    assert all(low < high <= low + max(1, low // 10) for low, high in pairs)


def test_good_answers_of_a_key_become_its_profile_and_its_tenant_s(books: Books) -> None:
    # given: three good answers, and one that broke off
    for output in (10, 10, 30):
        books.served(usage=(100, output))
    books.served(usage=(100, 999), outcome="upstream_cut")
    # when
    renewed = refreshed(books)
    # then
    assert renewed == 2
    for profile in CallProfile.objects.all():
        assert (profile.calls, profile.output_mean, profile.output_p99) == (3, 17, 32)
        assert profile.input_p99 == 1000, "nothing is known of the input's bound"
    assert set(CallProfile.objects.values_list("api_key_id", flat=True)) == {None, 5}


def test_each_event_is_counted_once(books: Books) -> None:
    # given
    books.served()
    refreshed(books)
    # when
    again = refreshed(books)
    books.served()
    refreshed(books)
    # then
    assert again == 0
    assert sum(CallCount.objects.filter(side="output").values_list("calls", flat=True)) == 2
    assert CallMark.objects.get().last_event_id > 0


def test_the_share_of_the_input_s_bound_is_counted_in_thousandths(books: Books) -> None:
    # given: a bound of four tokens for each that there was
    request_id = books.desk.placed(hold_nano=1_000_000)
    made = books.desk.event(request_id)
    made.detail.input_bound = 400
    books.desk.settle_events(request_id, [desks.holds.SettledAttempt(desks.encode(made), 280_000)])
    # when
    refreshed(books)
    # then
    profile = CallProfile.objects.get(api_key_id=5)
    assert (profile.input_mean, profile.input_p99) == (250, EDGES[_bucket(250)] - 1)


def _bucket(used: int) -> int:
    return sum(edge <= used for edge in EDGES)


def test_days_that_are_long_over_are_forgotten(books: Books) -> None:
    # given
    books.served(usage=(100, 500))
    refreshed(books)
    # when
    books.desk.now_ms += 15 * 86_400_000
    books.served(usage=(100, 10))
    refreshed(books)
    # then
    assert CallProfile.objects.get(api_key_id=5).output_p99 == 10
    assert CallCount.objects.filter(side="output").count() == 1
