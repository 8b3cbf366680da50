"""Budgets that fill up are told once, by mail and by signed webhooks."""

import hashlib
import hmac
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
import redis
from django.core import mail
from django.test import Client

from billing import registers
from billing.errors import LimitRefused
from billing.limits import alert_channels, budget_alerts
from billing.models import AlertChannel, AlertDelivery, AuditEntry, BudgetAlert, Quota
from gateway.alerts import delivery
from tests.people import Person

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


class Receiver:
    """A webhook's other end."""

    def __init__(self) -> None:
        self.status = 200
        self.got: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(receiver.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.WEBHOOKS_PRIVATE = True
    made = Receiver()
    yield made
    made.stop()


def quota(person: Person, **more: Any) -> Quota:
    tenant = person.tenant
    return Quota.objects.create(
        tenant=tenant, scope_kind="tenant", scope_id=str(tenant.pk), window="day",
        limit_pico=10**12, **more,
    )  # fmt: skip


def spend(client: redis.Redis, made: Quota, nano: int, *, at: datetime = NOON) -> None:
    span = registers.span_of("day", int(at.timestamp() * 1000))
    key = registers.spend_key(
        registers.shard_tag(made.tenant_id), made.tenant_id, kind="tenant",
        scope=made.scope_id, bucket=span.bucket,
    )  # fmt: skip
    client.hset(key, "spent", nano)


def channel(person: Person, kind: str, target: str) -> AlertChannel:
    return alert_channels.add(
        tenant=person.tenant, kind=kind, target=target, actor="alice", now=NOON
    )


def test_each_share_is_told_once_per_window(alice: Person, redis_client: redis.Redis) -> None:
    # given
    made = quota(alice)
    spend(redis_client, made, 499_999_999)
    assert budget_alerts.notice(redis_client, now=NOON) == 0
    # when
    spend(redis_client, made, 800_000_000)
    first, second = (budget_alerts.notice(redis_client, now=NOON) for _ in range(2))
    spend(redis_client, made, 1_000_000_000)
    third = budget_alerts.notice(redis_client, now=NOON)
    tomorrow = NOON + timedelta(days=1)
    spend(redis_client, made, 500_000_000, at=tomorrow)
    fourth = budget_alerts.notice(redis_client, now=tomorrow)
    # then
    assert (first, second, third, fourth) == (2, 0, 1, 1)
    told = BudgetAlert.objects.order_by("pk").values_list("percent", flat=True)
    assert list(told) == [50, 80, 100, 50]


def test_what_is_reached_in_a_window_s_last_seconds_is_told(
    alice: Person, redis_client: redis.Redis
) -> None:
    # given: the last look of the day saw nothing
    made = quota(alice)
    last = datetime(2026, 3, 10, 23, 59, 55, tzinfo=UTC)
    spend(redis_client, made, 400_000_000, at=last)
    assert budget_alerts.notice(redis_client, now=last) == 0
    # when: it fills up, and the next look is tomorrow's
    spend(redis_client, made, 850_000_000, at=last)
    after = last + timedelta(seconds=20)
    spend(redis_client, made, 500_000_000, at=after)
    first, second = (budget_alerts.notice(redis_client, now=after) for _ in range(2))
    # then
    assert (first, second) == (3, 0)
    told = BudgetAlert.objects.order_by("bucket", "percent")
    assert [(each.bucket, each.percent) for each in told] == [
        ("d202603100000", 50),
        ("d202603100000", 80),
        ("d202603110000", 50),
    ]
    midnight = datetime(2026, 3, 11, tzinfo=UTC)
    assert told[0].occurred_at == midnight - timedelta(milliseconds=1)
    # and by a request that settled days after, while its register lasts
    spend(redis_client, made, 1_000_000_000, at=last)
    assert budget_alerts.notice(redis_client, now=last + timedelta(days=2)) == 1
    spend(redis_client, made, 0, at=last)


@pytest.mark.parametrize("window", ["week", "month"])
def test_longer_windows_end_no_less(window: str, alice: Person, redis_client: redis.Redis) -> None:
    # given
    made = quota(alice)
    Quota.objects.update(window=window)
    at = {"week": datetime(2026, 3, 9, tzinfo=UTC), "month": datetime(2026, 4, 1, tzinfo=UTC)}
    over = registers.span_of(window, int(at[window].timestamp() * 1000) - 1)
    key = registers.spend_key(
        registers.shard_tag(made.tenant_id), made.tenant_id, kind="tenant",
        scope=made.scope_id, bucket=over.bucket,
    )  # fmt: skip
    redis_client.hset(key, "spent", 1_000_000_000)
    # then
    assert budget_alerts.notice(redis_client, now=at[window] + timedelta(seconds=10)) == 3


def test_a_limit_that_is_set_later_says_nothing_of_windows_that_were_over(
    alice: Person, redis_client: redis.Redis
) -> None:
    # given: yesterday had another limit
    made = quota(alice, limit_since=NOON)
    spend(redis_client, made, 900_000_000, at=NOON - timedelta(days=1))
    # then
    assert budget_alerts.notice(redis_client, now=NOON + timedelta(minutes=1)) == 0


def test_a_raised_budget_is_measured_by_its_raise(alice: Person, redis_client: redis.Redis) -> None:
    made = quota(alice, raised_pico=4 * 10**12, raised_until=NOON + timedelta(hours=1))
    spend(redis_client, made, 1_000_000_000)
    assert budget_alerts.notice(redis_client, now=NOON) == 0
    assert budget_alerts.notice(redis_client, now=NOON + timedelta(hours=1)) == 3


def test_a_mail_names_the_budget_and_its_figures(
    alice: Person, redis_client: redis.Redis, settings: Any
) -> None:
    # given
    settings.EMAIL_HOST = "mail.test"
    made = quota(alice)
    channel(alice, "mail", "finance@aurora.test")
    spend(redis_client, made, 500_000_000)
    budget_alerts.notice(redis_client, now=NOON)
    # when
    assert delivery.deliver_due(now=NOON) == 1
    assert delivery.deliver_due(now=NOON) == 0
    # then
    (sent,) = mail.outbox
    assert sent.to == ["finance@aurora.test"]
    assert "50 %" in sent.subject
    assert "$0.5 of $1" in sent.body


def test_a_webhook_is_signed_with_its_time(
    alice: Person, redis_client: redis.Redis, receiver: Receiver
) -> None:
    # given
    made = quota(alice)
    hook = channel(alice, "webhook", receiver.url)
    spend(redis_client, made, 500_000_000)
    budget_alerts.notice(redis_client, now=NOON)
    # when
    assert delivery.deliver_due(now=NOON) == 1
    # then
    ((headers, body),) = receiver.got
    stamp, _, signed = headers["x-tokenhouse-signature"].partition(",v1=")
    assert stamp == f"t={int(NOON.timestamp())}"
    said = stamp.removeprefix("t=").encode() + b"." + body
    secret = delivery.secret_of(hook).encode()
    assert hmac.compare_digest(signed, hmac.new(secret, said, hashlib.sha256).hexdigest())
    assert json.loads(body)["percent"] == 50


def test_a_failing_webhook_is_tried_eight_times_and_given_up(
    alice: Person, redis_client: redis.Redis, receiver: Receiver
) -> None:
    # given
    receiver.status = 500
    made = quota(alice)
    channel(alice, "webhook", receiver.url)
    spend(redis_client, made, 500_000_000)
    budget_alerts.notice(redis_client, now=NOON)
    # when
    now, pauses = NOON, []
    while (due := AlertDelivery.objects.get().due_at) is not None:
        pauses.append((due - now).total_seconds())
        now = due
        assert delivery.deliver_due(now=now) == 0
        assert delivery.deliver_due(now=now) == 0, "not before it is due again"
    # then
    given_up = AlertDelivery.objects.get()
    assert (given_up.tries, given_up.failure) == (8, "it answered 500")
    assert len(receiver.got) == 8
    assert len({body for _, body in receiver.got}) == 1
    assert pauses == [0, 15, 45, 135, 405, 1215, 3645, 10935]


@pytest.mark.parametrize(
    "target",
    ["http://example.com/x", "https://user:pw@example.com/", "ftp://example.com", "nonsense"],
)
def test_a_webhook_that_may_not_be_called_is_refused(target: str) -> None:
    with pytest.raises(LimitRefused):
        delivery.check_target("webhook", target)


@pytest.mark.parametrize("address", ["169.254.169.254", "127.0.0.1", "10.0.0.7", "[::1]"])
def test_a_webhook_reaches_no_private_address(
    alice: Person, redis_client: redis.Redis, address: str
) -> None:
    # given: what passes as a URL is checked again by where it leads
    made = quota(alice)
    channel(alice, "webhook", f"https://{address}/hook")
    spend(redis_client, made, 500_000_000)
    budget_alerts.notice(redis_client, now=NOON)
    # when / then
    assert delivery.deliver_due(now=NOON) == 0
    assert "address" in AlertDelivery.objects.get().failure


def test_mail_needs_a_server_and_an_address(settings: Any) -> None:
    settings.EMAIL_HOST = ""
    with pytest.raises(LimitRefused, match="no mail server"):
        delivery.check_target("mail", "a@b.test")
    settings.EMAIL_HOST = "mail.test"
    with pytest.raises(LimitRefused, match="not a mail address"):
        delivery.check_target("mail", "nobody")


def test_a_tenant_adds_and_removes_whom_to_tell(
    alice: Person, charlie: Person, settings: Any
) -> None:
    # given
    settings.EMAIL_HOST = "mail.test"
    client = Client()
    client.force_login(alice.user)
    # when
    client.post("/budgets/channel/", {"kind": "webhook", "target": "https://example.com/h"})
    client.post("/budgets/channel/", {"kind": "webhook", "target": "http://10.0.0.1/h"})
    # then
    (made,) = AlertChannel.objects.all()
    page = client.get("/budgets/").content.decode()
    assert delivery.secret_of(made) in page
    assert AuditEntry.objects.get(action="alert_channel.add").actor == alice.user.username
    # and another tenant neither sees nor removes it
    stranger = Client()
    stranger.force_login(charlie.user)
    assert "example.com/h" not in stranger.get("/budgets/").content.decode()
    stranger.post(f"/budgets/channel/{made.pk}/remove/")
    assert AlertChannel.objects.count() == 1
    client.post(f"/budgets/channel/{made.pk}/remove/")
    assert AlertChannel.objects.count() == 0


def test_a_tenant_has_a_limited_number_of_channels(alice: Person) -> None:
    for number in range(alert_channels.CHANNELS_MAX):
        channel(alice, "webhook", f"https://example.com/{number}")
    with pytest.raises(LimitRefused):
        channel(alice, "webhook", "https://example.com/more")
