"""Hold, settle, checkpoint, void, expire on a real Redis, one promise per test."""

import pytest
import redis

from billing import registers
from billing.errors import Behind
from billing.holding import holds
from billing.holding.holds import Cold, HoldNotOpen, Placed, RateScope, Refused, Settled, SpendScope
from billing.money import REGISTER_NANO_MAX
from tests.billing import desk as desks
from tests.billing.desk import Desk

KEY_DAY = SpendScope("key", "5", "day", 4000)
TEAM_MONTH = SpendScope("team", "2", "month", 9000)
KEY_LIFE = SpendScope("key", "5", "lifetime", 50_000)
DAY_MS = 86_400_000


def test_a_hold_is_counted_in_every_scope(desk: Desk) -> None:
    # given
    desk.spend = (KEY_DAY, TEAM_MONTH, KEY_LIFE)
    # when
    _, outcome = desk.place(hold_nano=1500)
    # then
    assert outcome == Placed(balance_nano=8500)
    assert desk.tenant_register() == {"credit": 10_000, "spent": 0, "held": 1500}
    assert [desk.spend_register(scope) for scope in desk.spend] == [(0, 1500)] * 3


def test_a_refusal_in_the_last_scope_writes_nothing_at_all(desk: Desk) -> None:
    # given
    desk.rates = (RateScope("key", "5", rpm=100, tpm=10_000, concurrency=5),)
    desk.spend = (TEAM_MONTH, KEY_LIFE, KEY_DAY)
    desk.placed(hold_nano=3500)
    before = desks.dump(desk.client)
    desk.now_ms += 7
    # when
    _, outcome = desk.place(hold_nano=501)
    # then
    assert outcome == Refused("over_budget", "key", "5", "day", 4000, 500, 0)
    assert desks.dump(desk.client) == before


def test_credit_is_a_cap_to_the_last_nano_dollar(desk: Desk) -> None:
    # given
    desk.placed(hold_nano=9_999)
    # when
    _, beyond = desk.place(hold_nano=2)
    _, within = desk.place(hold_nano=1)
    # then
    assert beyond == Refused("over_budget", "tenant", "71", "credit", 10_000, 1, 0)
    assert within == Placed(balance_nano=0)


def test_a_free_request_needs_no_credit(desk: Desk) -> None:
    # given
    desk.placed(hold_nano=10_000)
    # when
    _, outcome = desk.place(hold_nano=0)
    # then
    assert outcome == Placed(balance_nano=0)


def test_placing_twice_holds_once(desk: Desk) -> None:
    # given
    request_id, first = desk.place(hold_nano=400)
    before = desks.dump(desk.client)
    # when
    _, second = desk.place(hold_nano=400, request_id=request_id)
    # then
    assert second == first
    assert desks.dump(desk.client) == before


def test_placing_what_is_settled_already_is_refused(desk: Desk) -> None:
    # given
    request_id = desk.placed()
    desk.settle(request_id, 10)
    # when / then
    with pytest.raises(HoldNotOpen, match="settled"):
        desk.place(request_id=request_id)


def test_a_shard_that_lost_its_epoch_grants_nothing(desk: Desk) -> None:
    # given
    request_id = desk.placed()
    desk.client.delete(registers.epoch_key(desk.tag))
    before = desks.dump(desk.client)
    # when / then
    for act in (desk.place, lambda: desk.settle(request_id, 1), lambda: desk.void(request_id)):
        with pytest.raises(Cold):
            act()
    with pytest.raises(Cold):
        desk.checkpoint(request_id, charge_nano=1)
    with pytest.raises(Cold):
        desk.expire(request_id)
    assert desks.dump(desk.client) == before


def test_a_shard_of_another_epoch_grants_nothing(desk: Desk) -> None:
    # given
    desk.epoch = "epoch-2"
    # when / then
    with pytest.raises(Cold):
        desk.place()


def test_a_revoked_key_fails_at_its_next_call(desk: Desk) -> None:
    # given
    desk.placed()
    holds.set_key_status(desk.client, desk.tenant, desk.key, "revoked")
    # when
    _, outcome = desk.place()
    # then
    assert isinstance(outcome, Refused)
    assert outcome.code == "key_revoked"


def test_a_suspended_tenant_is_refused(desk: Desk) -> None:
    # given
    desk.set_credit(10_000, version=2, status="suspended")
    # when
    _, outcome = desk.place()
    # then
    assert outcome == Refused("tenant_suspended", "tenant", "71", "credit", 0, 0, 0)


def test_requests_per_minute_are_counted_at_admission(desk: Desk) -> None:
    # given
    desk.rates = (RateScope("team", "2", rpm=2),)
    desk.now_ms += 15_000
    desk.placed()
    desk.placed()
    # when
    _, third = desk.place()
    desk.now_ms += 45_000
    _, next_minute = desk.place()
    # then
    assert third == Refused("rate_limited", "team", "2", "rpm", 2, 0, 45_000)
    assert isinstance(next_minute, Placed)


def test_tokens_that_were_not_used_return_to_the_minute_of_the_hold(desk: Desk) -> None:
    # given
    desk.rates = (RateScope("key", "5", tpm=1000),)
    request_id = desk.placed(tokens=900)
    _, refused = desk.place(tokens=200)
    # when
    desk.settle(request_id, 10, tokens=300)
    # then
    assert refused == Refused("rate_limited", "key", "5", "tpm", 1000, 100, 60_000)
    assert isinstance(desk.place(tokens=700)[1], Placed)
    assert isinstance(desk.place(tokens=1)[1], Refused)


def test_open_requests_are_limited_and_a_settle_makes_room(desk: Desk) -> None:
    # given
    desk.rates = (RateScope("key", "5", concurrency=2),)
    first = desk.placed()
    desk.placed()
    _, third = desk.place()
    # when
    desk.settle(first, 10)
    # then
    assert third == Refused("concurrency", "key", "5", "concurrency", 2, 0, 1000)
    assert isinstance(desk.place()[1], Placed)


def test_an_expired_lease_does_not_count_as_open_even_before_the_sweep(desk: Desk) -> None:
    # given
    desk.rates = (RateScope("key", "5", concurrency=1),)
    desk.placed()
    # when
    desk.now_ms += holds.LEASE_MS
    # then
    assert isinstance(desk.place()[1], Placed)


def test_a_checkpoint_keeps_a_request_open(desk: Desk) -> None:
    # given
    desk.rates = (RateScope("key", "5", concurrency=1),)
    request_id = desk.placed()
    desk.now_ms += holds.LEASE_MS - 1
    # when
    desk.checkpoint(request_id, charge_nano=5)
    # then
    desk.now_ms += 2
    assert isinstance(desk.place()[1], Refused)
    assert desk.expire(request_id) is False


def test_time_never_goes_back(desk: Desk) -> None:
    # given
    desk.rates = (RateScope("key", "5", concurrency=1),)
    desk.placed()
    desk.now_ms += holds.LEASE_MS
    desk.placed()
    # when: a process whose clock is behind asks
    desk.now_ms -= holds.LEASE_MS
    late_clock = desk.place()[1]
    # then: the second request is still open, and the first still is not
    assert late_clock == Refused("concurrency", "key", "5", "concurrency", 1, 0, 1000)


def test_a_clock_that_ran_ahead_does_not_end_what_comes_after_it(desk: Desk) -> None:
    # given: one process was an hour ahead once
    desk.rates = (RateScope("key", "5", rpm=1),)
    desk.now_ms += 3_600_000
    desk.placed()
    desk.now_ms -= 3_600_000
    # when
    request_id = desk.placed()
    # then: its lease lasts, and so does the minute that it is counted in
    assert not desk.expire(request_id)
    counters = list(desk.client.scan_iter("rpm:*"))
    assert len(counters) == 2
    assert all(desk.client.pttl(key) > 60_000 for key in counters)
    # and when it is renewed
    desk.checkpoint(request_id, charge_nano=1)
    assert not desk.expire(request_id)


def test_a_settle_debits_the_actual_and_releases_the_rest(desk: Desk) -> None:
    # given
    desk.spend = (KEY_DAY, KEY_LIFE)
    request_id = desk.placed(hold_nano=1500)
    # when
    settled = desk.settle(request_id, 0, 420)
    # then
    assert settled == Settled(charged_nano=420, overage_nano=0, late=False, balance_nano=9580)
    assert desk.tenant_register() == {"credit": 10_000, "spent": 420, "held": 0}
    assert [desk.spend_register(scope) for scope in desk.spend] == [(420, 0)] * 2
    assert [(e["c"], e["o"], e["h"], e["l"]) for e in desk.entries()] == [
        ("0", "0", "1500", "0"),
        ("420", "0", "1500", "0"),
    ]


def test_a_settle_retried_after_a_lost_reply_changes_nothing(desk: Desk) -> None:
    # given
    request_id = desk.placed(hold_nano=1500)
    first = desk.settle(request_id, 420)
    before = desks.dump(desk.client)
    # when
    second = desk.settle(request_id, 999)
    # then
    assert second == first
    assert desks.dump(desk.client) == before
    assert len(desk.entries()) == 1


def test_a_provider_that_reports_more_than_the_hold_is_paid_by_the_house(desk: Desk) -> None:
    # given
    request_id = desk.placed(hold_nano=1000)
    # when
    settled = desk.settle(request_id, 700, 500)
    # then
    assert settled == Settled(charged_nano=1000, overage_nano=200, late=False, balance_nano=9000)
    assert [(e["c"], e["o"]) for e in desk.entries()] == [("700", "0"), ("300", "200")]


def test_a_hold_settles_in_the_window_it_was_admitted_in(desk: Desk) -> None:
    # given
    desk.spend = (KEY_DAY, SpendScope("team", "2", "month", 9000))
    desk.now_ms = desks.NOON_MS + 21 * DAY_MS + DAY_MS // 2 - 1  # 31 March, last millisecond
    request_id = desk.placed(hold_nano=1500)
    admitted_ms = desk.now_ms
    # when
    desk.now_ms += 2
    desk.settle(request_id, 400)
    # then
    assert [desk.spend_register(s, at_ms=admitted_ms) for s in desk.spend] == [(400, 0)] * 2
    assert [desk.spend_register(s) for s in desk.spend] == [(0, 0)] * 2


def test_a_void_releases_everything_and_records_nothing(desk: Desk) -> None:
    # given
    desk.spend = (KEY_DAY,)
    desk.rates = (RateScope("key", "5", tpm=100, concurrency=1),)
    request_id = desk.placed(hold_nano=1500)
    # when
    desk.void(request_id)
    desk.void(request_id)
    # then
    assert desk.tenant_register() == {"credit": 10_000, "spent": 0, "held": 0}
    assert desk.spend_register(KEY_DAY) == (0, 0)
    assert desk.entries() == []
    assert isinstance(desk.place()[1], Placed)


def test_an_expiry_charges_the_last_checkpoint_and_says_so_once(desk: Desk) -> None:
    # given
    desk.spend = (KEY_DAY,)
    request_id = desk.placed(hold_nano=1500)
    failed = desk.body(request_id, attempt=0, outcome="upstream_error", usage=None)
    desk.checkpoint(request_id, charge_nano=300, attempt=1, finished=(failed,))
    desk.now_ms += holds.LEASE_MS
    # when
    expired = [desk.expire(request_id), desk.expire(request_id)]
    # then
    assert expired == [True, False]
    assert desk.tenant_register() == {"credit": 10_000, "spent": 300, "held": 0}
    assert desk.spend_register(KEY_DAY) == (300, 0)
    assert [(e["c"], e.get("x", "")) for e in desk.entries()] == [("0", ""), ("300", "1")]
    assert desk.entries()[0]["e"].encode() == failed
    assert '"outcome":"unknown"' in desk.entries()[1]["e"]


def test_a_live_lease_is_not_expired(desk: Desk) -> None:
    # given
    request_id = desk.placed()
    desk.now_ms += holds.LEASE_MS - 1
    before = desks.dump(desk.client)
    # when
    expired = desk.expire(request_id)
    # then
    assert expired is False
    assert desks.dump(desk.client) == before


def test_a_checkpoint_after_the_expiry_is_told(desk: Desk) -> None:
    # given
    request_id = desk.placed()
    desk.now_ms += holds.LEASE_MS
    desk.expire(request_id)
    # when / then
    with pytest.raises(HoldNotOpen, match="expired"):
        desk.checkpoint(request_id, charge_nano=1)


def test_a_late_settle_takes_only_what_is_free(desk: Desk) -> None:
    # given: expired at a checkpoint of 300, and somebody else holds all the rest but 100
    request_id = desk.placed(hold_nano=1500)
    desk.checkpoint(request_id, charge_nano=300)
    desk.now_ms += holds.LEASE_MS
    desk.expire(request_id)
    desk.placed(hold_nano=9_600)
    # when
    settled = desk.settle(request_id, 900)
    # then: 300 were charged before, 100 are free, 500 are the house's
    assert settled == Settled(charged_nano=400, overage_nano=500, late=True, balance_nano=0)
    assert desk.tenant_register() == {"credit": 10_000, "spent": 400, "held": 9_600}
    assert [(e["c"], e["o"], e["l"]) for e in desk.entries()][-1] == ("100", "500", "1")


def test_a_late_settle_below_the_checkpoint_gives_back(desk: Desk) -> None:
    # given
    request_id = desk.placed(hold_nano=1500)
    desk.checkpoint(request_id, charge_nano=300)
    desk.now_ms += holds.LEASE_MS
    desk.expire(request_id)
    # when
    settled = desk.settle(request_id, 250)
    # then
    assert settled == Settled(charged_nano=250, overage_nano=0, late=True, balance_nano=9_750)
    assert desk.tenant_register()["spent"] == 250


def test_a_late_settle_respects_every_limit_of_its_hold(desk: Desk) -> None:
    # given
    desk.spend = (KEY_DAY,)
    request_id = desk.placed(hold_nano=1500)
    desk.now_ms += holds.LEASE_MS
    desk.expire(request_id)
    desk.placed(hold_nano=3_900)
    # when
    settled = desk.settle(request_id, 1500)
    # then
    assert (settled.charged_nano, settled.overage_nano) == (100, 1400)
    assert desk.spend_register(KEY_DAY) == (100, 3_900)


def test_a_settle_without_any_memory_of_the_hold_uses_the_scopes_it_brings(desk: Desk) -> None:
    # given
    desk.spend = (KEY_DAY,)
    request_id = desks.request_id_at(desk.now_ms)
    # when
    settled = desk.settle(request_id, 5000)
    # then
    assert settled == Settled(charged_nano=4000, overage_nano=1000, late=True, balance_nano=6000)
    assert desk.spend_register(KEY_DAY) == (4000, 0)


def test_large_amounts_stay_exact(desk: Desk) -> None:
    # given
    desk.set_credit(REGISTER_NANO_MAX - 1, version=2)
    hold_nano = 4_503_599_627_370_001
    # when
    _, outcome = desk.place(hold_nano=hold_nano)
    # then
    assert outcome == Placed(balance_nano=REGISTER_NANO_MAX - 1 - hold_nano)
    assert desk.tenant_register()["held"] == hold_nano


def test_a_hold_that_fits_no_register_is_refused_before_redis(desk: Desk) -> None:
    with pytest.raises(ValueError, match="fit no register"):
        desk.place(hold_nano=REGISTER_NANO_MAX)


def test_a_settle_that_cannot_be_written_whole_writes_nothing(desk: Desk) -> None:
    # given: the register of a window is broken
    desk.spend = (KEY_DAY, KEY_LIFE)
    request_id = desk.placed()
    bucket = registers.span_of("lifetime", desk.now_ms).bucket
    broken = registers.spend_key(desk.tag, 71, kind="key", scope="5", bucket=bucket)
    desk.client.hset(broken, "spent", "not a number")
    before = desks.dump(desk.client)
    # when
    with pytest.raises(redis.ResponseError, match="not a whole number"):
        desk.settle(request_id, 10)
    # then
    assert desks.dump(desk.client) == before


def test_an_older_credit_is_ignored(desk: Desk) -> None:
    # when
    written = [desk.set_credit(700, version=3), desk.set_credit(900, version=2)]
    # then
    assert written == [True, False]
    assert desk.tenant_register()["credit"] == 700


def test_a_settled_outcome_is_remembered_past_the_deadline(desk: Desk) -> None:
    # given
    request_id = desk.placed()
    # when
    desk.settle(request_id, 10)
    # then
    left_ms = desk.client.pttl(registers.hold_key(desk.tag, request_id))
    assert 600_000 < left_ms <= 600_000 + holds.GRACE_MS


def test_nothing_is_granted_while_usage_piles_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr(holds, "UNDRAINED_MAX", 2)
    for _ in range(2):
        desk.settle(desk.placed(), 10)
    before = desks.dump(desk.client)
    # when / then
    with pytest.raises(Behind):
        desk.place()
    assert desks.dump(desk.client) == before
