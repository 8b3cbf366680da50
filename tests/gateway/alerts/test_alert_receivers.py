"""Receivers of alerts are served each by itself: a slow, broken or silent one delays nobody, nobody
is sent to twice at once, and every message is signed when it is sent."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any

import pytest
from django.db import connection

from billing.limits import alert_channels, alert_queue
from billing.models import AlertChannel, AlertDelivery, BudgetAlert
from gateway.alerts import delivery
from tests.patience import PATIENCE_S, ran_s
from tests.people import Person

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
MESSAGES = 3


class Receiver:
    """Answers when it is told to; notes what came when, and how many came at once."""

    def __init__(self, *, opens_at_once: bool = True) -> None:
        self.may_answer = Event()
        if opens_at_once:
            self.may_answer.set()
        self.ids: list[str] = []
        self.stamps: list[int] = []
        self.came: list[float] = []
        self.at_once = self.at_once_max = 0
        self.status = 200
        self._lock = Lock()

    def took(self, headers: Any, body: bytes) -> None:
        with self._lock:
            self.at_once += 1
            self.at_once_max = max(self.at_once_max, self.at_once)
            self.ids.append(json.loads(body)["id"])
            stamp = headers["x-tokenhouse-signature"].partition(",")[0]
            self.stamps.append(int(stamp.removeprefix("t=")))
            self.came.append(ran_s())

    def over(self) -> None:
        with self._lock:
            self.at_once -= 1


@contextmanager
def listening(receiver: Receiver) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.took(self.headers, self.rfile.read(int(self.headers["content-length"])))
            receiver.may_answer.wait(PATIENCE_S)
            receiver.over()
            self.send_response(receiver.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook"
    finally:
        receiver.may_answer.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def listen(settings: Any) -> Iterator[Callable[..., Receiver]]:
    settings.WEBHOOKS_PRIVATE = True
    with ExitStack() as stack:

        def start(person: Person, **terms: Any) -> Receiver:
            receiver = Receiver(**terms)
            url = stack.enter_context(listening(receiver))
            made = alert_channels.add(
                tenant=person.tenant, kind="webhook", target=url, actor="a", now=NOON
            )
            queue(made)
            return receiver

        yield start


def queue(channel: AlertChannel) -> None:
    for number in range(MESSAGES):
        alert = BudgetAlert.objects.create(
            tenant=channel.tenant, quota_id=channel.pk, bucket=str(number), percent=50,
            subject="s", spent_pico=1, limit_pico=2, occurred_at=NOON,
        )  # fmt: skip
        AlertDelivery.objects.create(alert=alert, channel=channel, due_at=NOON)


def test_a_slow_receiver_delays_nobody(
    alice: Person, charlie: Person, listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: the first in line never answers
    monkeypatch.setattr(delivery, "TIMEOUT_S", 6.0)
    slow = listen(charlie, opens_at_once=False)
    good = [listen(alice) for _ in range(3)]
    # when
    began = ran_s()
    assert delivery.deliver_due(now=NOON) == 3 * MESSAGES
    # then
    assert all(max(each.came) - began < 5 for each in good)
    assert [len(each.ids) for each in (slow, *good)] == [1, *[MESSAGES] * 3]
    assert ran_s() - began < 8
    # and what else it was to get waits for it alone
    waiting = AlertDelivery.objects.filter(channel__tenant=charlie.tenant)
    assert sorted(waiting.values_list("tries", flat=True)) == [0, 0, 1]
    assert not AlertChannel.objects.exclude(busy_until=None).exists()


def test_a_receiver_that_fails_keeps_its_order_and_its_pauses(alice: Person, listen: Any) -> None:
    # given
    receiver = listen(alice)
    receiver.status = 503
    assert delivery.deliver_due(now=NOON) == 0
    receiver.status = 200
    # when
    assert delivery.deliver_due(now=NOON + timedelta(seconds=15)) == MESSAGES
    # then
    first, *again = receiver.ids
    assert sorted(again) == sorted(set(receiver.ids))
    assert first in again


def test_every_try_is_signed_at_its_moment(alice: Person, listen: Any) -> None:
    # given
    receiver = listen(alice)
    receiver.status = 500
    tries = [NOON, NOON + timedelta(hours=1), NOON + timedelta(hours=9)]
    # when
    for now in tries:
        delivery.deliver_due(now=now)
    # then
    assert receiver.stamps == [int(now.timestamp()) for now in tries]


def test_what_waited_for_an_earlier_one_is_signed_when_it_is_sent(
    alice: Person, listen: Any
) -> None:
    # given: the first answer takes two seconds
    receiver = listen(alice, opens_at_once=False)
    Thread(target=lambda: (Event().wait(2.1), receiver.may_answer.set()), daemon=True).start()
    # when
    began = monotonic()
    assert delivery.deliver_due(now=NOON) == MESSAGES
    took_s = monotonic() - began
    # then
    first, *rest = receiver.stamps
    assert first == int(NOON.timestamp())
    assert all(2 <= stamp - first <= took_s for stamp in rest)


@pytest.mark.django_db(transaction=True)
def test_two_senders_never_send_to_one_receiver_at_once(alice: Person, listen: Any) -> None:
    # given
    receiver = listen(alice, opens_at_once=False)

    def send() -> None:
        delivery.deliver_due(now=NOON)
        connection.close()

    senders = [Thread(target=send) for _ in range(4)]
    # when
    for sender in senders:
        sender.start()
    Event().wait(1)
    receiver.may_answer.set()
    for sender in senders:
        sender.join()
    # then
    assert receiver.at_once_max == 1
    assert len(receiver.ids) == len(set(receiver.ids)) == MESSAGES


def test_a_sender_that_fell_silent_loses_its_claim(alice: Person, listen: Any) -> None:
    # given: it has claimed the receiver, sent one, and was killed
    listen(alice)
    (channel,) = alert_queue.claim_due(now=NOON, at_most=10)
    until = NOON + alert_queue.CLAIM_LASTS
    first = alert_queue.take(channel, now=NOON, until=until)
    assert first is not None
    assert alert_queue.claim_due(now=NOON + timedelta(seconds=29), at_most=10) == []
    # when
    later = NOON + timedelta(seconds=31)
    assert delivery.deliver_due(now=later) == MESSAGES
    # then: should it wake up, it sends nothing any more
    assert alert_queue.take(channel, now=later, until=later) is None
    first.refresh_from_db()
    assert (first.tries, first.delivered_at) == (2, later)


def test_a_run_is_bounded(alice: Person, listen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setattr(delivery, "PER_RECEIVER_MAX", 2)
    monkeypatch.setattr(delivery, "RECEIVERS_MAX", 1)
    receivers = [listen(alice) for _ in range(2)]
    # when / then
    assert [delivery.deliver_due(now=NOON) for _ in range(5)] == [2, 1, 2, 1, 0]
    assert [len(set(each.ids)) for each in receivers] == [MESSAGES] * 2
