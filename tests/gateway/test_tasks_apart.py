"""The periodic tasks of sellers and people: one that cannot be served keeps no other waiting."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import redis
from django.core import mail

from billing import registers
from billing.drain import metering
from billing.fault_isolation import SomeFailed
from billing.limits import alert_channels, credit_alerts
from billing.models import BudgetAlert, CreditAlert, Quota, TaskRun, Tenant
from gateway import tasks as gateway_tasks
from providers import tasks
from providers.boards import leaderboards
from providers.machines import in_house, workers
from providers.market import price_files
from providers.models import HomeBoard, Leaderboard, MeasurementRollup, Offer, PriceSource, Provider
from tests import listed
from tests.people import Person
from tests.providers.made_offers import NOW, attempt, make_offer, post, registration, worker_key

pytestmark = pytest.mark.django_db(transaction=True)
USD = 10**12


@pytest.fixture
def machine() -> Iterator[str]:
    """Somebody's server: every page of it is the same few metrics."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"vllm:num_requests_running 3\n"
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def ran(task: Any, name: str) -> list[str]:
    """Who failed in it, as its run tells operators."""
    with pytest.raises(SomeFailed) as told:
        task()
    noted = TaskRun.objects.get(name=name)
    assert noted.failed_at is not None
    failed = [failed for failed, _ in told.value.failures]
    assert all(each in noted.failure for each in failed)
    return failed


def test_a_pool_that_cannot_be_asked_keeps_no_other_from_being_checked(machine: str) -> None:
    # given: the first has no address at all
    for slug, url in (("a-broken", "http://[nonsense"), ("fine", machine)):
        provider = Provider.objects.create(
            slug=slug, name=slug, kind=Provider.Kind.POOL, wire="openai", base_url=url
        )
        make_offer(f"{slug}/small", provider_id=provider.pk, state=Offer.State.DEMOTED)
    # when
    failed = ran(tasks.check_offers, tasks.CHECK)
    # then
    broken = Offer.objects.get(sku="a-broken/small")
    assert failed == [f"offer {broken.pk}"]
    assert Provider.objects.get(slug="a-broken").load == {}
    assert Offer.objects.get(sku="fine/small").state == Offer.State.LIVE
    assert Provider.objects.get(slug="fine").load["running"] == 3


def test_a_worker_that_cannot_be_priced_keeps_no_other_from_its_price() -> None:
    # given
    key, _ = worker_key()
    made = []
    for name in ("broken", "fine"):
        registered = registration(name=name, model=name)
        made.append(workers.register(key=key, registration=registered, now=NOW))
    broken, fine = made
    for worker in made:
        done = {"uptime_s": 400.0, "input_tokens_uncached": 40_000, "input_seconds": 100.0}
        done |= {"output_tokens": 10_000, "output_seconds": 250.0}
        workers.heartbeat(key=worker.key, worker_id=worker.pk, load={}, totals=done, now=NOW)
    type(broken).objects.filter(pk=broken.pk).update(calibration={})
    # when
    with pytest.raises(SomeFailed, match=f"{broken.offer.sku}: CalibrationRefused") as told:
        in_house.publish_all(now=NOW + timedelta(minutes=6))
    # then
    assert len(told.value.failures) == 1
    later = listed.price_at(fine.offer.sku, NOW + timedelta(hours=1))[0]
    assert later.output_pico == 2_200_000, "a step up from the calibrated 2,000,000"


def test_a_board_that_cannot_be_made_keeps_no_other_nor_the_home_board(
    redis_client: redis.Redis,
) -> None:
    # given
    broken, fine = make_offer("acme/a", model="a"), make_offer("acme/b", model="b")
    metering.ensure_groups(redis_client)
    post(attempt(broken), attempt(fine, 1))
    tasks.record_measurements()
    MeasurementRollup.objects.filter(offer=broken).update(errors=5)
    # when
    with pytest.raises(SomeFailed, match=f"offer {broken.pk}: TypeError"):
        leaderboards.refresh(now=NOW)
    # then
    rows = {board.model.slug: board.rows[0] for board in Leaderboard.objects.filter(window="1h")}
    assert {slug: row["requests"] for slug, row in rows.items()} == {"a": 0, "b": 1}
    assert HomeBoard.objects.count() == 1


def test_a_price_source_that_breaks_its_reader_keeps_no_other_unread(
    machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    for name in ("broken", "fine"):
        PriceSource.objects.create(name=name, url=machine, is_private=True, provider=name)
    read = price_files.read

    def broken(body: bytes, *, provider: str) -> Any:
        return 1 // 0 if provider == "broken" else read(body, provider=provider)

    monkeypatch.setattr(price_files, "read", broken)
    # when
    failed = ran(gateway_tasks.read_price_sources, gateway_tasks.PRICES)
    # then
    assert failed == ["broken"]
    assert "failed" in PriceSource.objects.get(name="fine").outcome


def test_a_budget_that_cannot_be_looked_at_keeps_no_other_nor_credit_nor_word_of_them(
    redis_client: redis.Redis, alice: Person, charlie: Person
) -> None:
    # given: alice's tenant has no calendar, charlie's budget is used up and his credit low
    for person in (alice, charlie):
        Quota.objects.create(
            tenant=person.tenant,
            scope_kind="tenant",
            scope_id=str(person.tenant.pk),
            window="lifetime" if person is charlie else "day",
            limit_pico=USD,
        )
        credit_alerts.set_threshold(tenant=person.tenant, below_pico=USD, actor="a", now=NOW)
    alert_channels.add(
        tenant=charlie.tenant, kind="mail", target="c@example.org", actor="a", now=NOW
    )
    Tenant.objects.filter(pk=alice.tenant.pk).update(time_zone="Mars/Olympus")
    tag = registers.shard_tag(alice.tenant.pk)
    redis_client.set(registers.tenant_key(tag, alice.tenant.pk), "nonsense")
    tag = registers.shard_tag(charlie.tenant.pk)
    redis_client.hset(registers.tenant_key(tag, charlie.tenant.pk), "credit", 5)
    spent = registers.spend_key(
        tag, charlie.tenant.pk, kind="tenant", scope=str(charlie.tenant.pk), bucket="lifetime"
    )
    redis_client.hset(spent, "spent", USD // 1000)
    # when
    failed = ran(gateway_tasks.tell_of_budgets, gateway_tasks.BUDGETS)
    # then
    budget = Quota.objects.get(tenant=alice.tenant)
    assert failed == [f"budget {budget.pk} of {alice.tenant.slug}", alice.tenant.slug]
    assert set(BudgetAlert.objects.values_list("tenant", flat=True)) == {charlie.tenant.pk}
    assert CreditAlert.objects.get().tenant == charlie.tenant
    assert len(mail.outbox) == 4
