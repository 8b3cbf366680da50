"""A second source of prices by its address: read once a day with suspicion, and compared."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from django.test import Client

from billing.models import InvariantCheck, PriceDisagreement, TaskRun
from billing.prices import second_source as price_check
from gateway import price_sources, tasks
from providers.models import PriceSource
from tests.providers.made_offers import publish

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
SKU = "openrouter/acme/m0"


class Site:
    """Somebody else's price list."""

    def __init__(self) -> None:
        self.status, self.pricing, self.asked = 200, {"prompt": "0.000002"}, list[str]()
        self.raw: bytes | None = None
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                body = site.body()
                self.send_response(site.status)
                self.send_header("content-length", str(len(body)))
                self.send_header("location", "http://169.254.169.254/")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/api/v1/models?all=1"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def body(self) -> bytes:
        if self.raw is not None:
            return self.raw
        data = [{"id": "acme/m0", "name": "M", "pricing": self.pricing}]
        return json.dumps({"data": data}).encode()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.stop()


def source(url: str, **facts: Any) -> PriceSource:
    return PriceSource.objects.create(**{"name": "mirror", "url": url, "is_private": True} | facts)


def open_now() -> int:
    return PriceDisagreement.objects.filter(ended_at=None).count()


def alert() -> bool:
    return InvariantCheck.objects.get(name=price_check.ALERT).holds


def test_it_is_read_once_a_day_and_what_is_apart_is_an_alert(site: Site) -> None:
    # given our price of 1 $/M where the other says 2
    publish(SKU, ("1", "1", "3"), since=NOON - timedelta(days=9))
    made = source(site.url)
    # when
    read = [price_sources.read_due(now=NOON + timedelta(hours=hour)) for hour in (0, 1, 23, 24)]
    # then
    assert read == [1, 0, 0, 1]
    assert site.asked == ["/api/v1/models?all=1"] * 2
    (row,) = PriceDisagreement.objects.all()
    assert (row.sku, row.rate, row.source) == (SKU, "input_pico", "url: mirror")
    assert (row.ours_pico, row.theirs_pico, alert()) == (1_000_000, 2_000_000, False)
    made.refresh_from_db()
    assert made.outcome.startswith("1 rates of 1 skus compared, 1 more than 1 % apart")

    # and when both agree again, the alert is over
    site.pricing = {"prompt": "0.000001"}
    price_sources.read_due(now=NOON + timedelta(hours=48))
    assert (open_now(), alert()) == (0, True)


@pytest.mark.parametrize("status", [302, 404, 500])
def test_an_answer_that_is_none_is_noted_and_tried_the_next_day(site: Site, status: int) -> None:
    # given
    site.status = status
    made = source(site.url)
    # when
    assert price_sources.read_due(now=NOON) == 0
    assert price_sources.read_due(now=NOON + timedelta(hours=1)) == 0
    # then no redirect was followed, and nothing was compared
    made.refresh_from_db()
    assert (made.outcome, made.read_at) == (f"failed: it answered {status}", None)
    assert (len(site.asked), open_now()) == (1, 0)


def test_an_answer_without_end_and_one_that_is_no_list_are_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = source(site.url)
    site.raw = b"<html>"
    assert not price_sources.read(made, now=NOON)
    assert made.outcome.startswith("failed: ")
    monkeypatch.setattr(price_sources, "FILE_BYTES_MAX", 5)
    assert not price_sources.read(made, now=NOON)
    assert made.outcome == "failed: it answered more than 5 bytes"


def test_a_source_that_takes_too_long_is_left(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(price_sources, "TIMEOUT_S", 0.0)
    made = source(site.url)
    assert not price_sources.read(made, now=NOON)
    assert made.outcome == "failed: no whole answer within 0 s"


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.7", "169.254.169.254"])
def test_a_public_source_leads_to_no_private_address(address: str) -> None:
    made = source(f"https://{address}/models", is_private=False)
    assert not price_sources.read(made, now=NOON)
    assert "address" in made.outcome


def test_one_that_fails_does_not_keep_the_next_from_being_read(site: Site) -> None:
    publish(SKU, ("2", "2", "3"), since=NOON - timedelta(days=9))
    source("https://127.0.0.1/models", name="a-dead-one", is_private=False)
    source(site.url)
    tasks.read_price_sources()
    assert PriceSource.objects.get(name="mirror").read_at is not None
    assert TaskRun.objects.get(name=tasks.PRICES).failed_at is None


def test_an_operator_adds_reads_and_switches_off(admin_client: Client, site: Site) -> None:
    # given
    publish(SKU, ("1", "1", "3"), since=NOON - timedelta(days=9))
    page = "/admin/providers/pricesource/"
    asked = {"name": "mirror", "url": site.url, "provider": "openrouter", "is_on": "on"}
    # when it is not said to be the house's own, it is refused
    refused = admin_client.post(f"{page}add/", asked)
    assert "by https only" in refused.content.decode()
    admin_client.post(f"{page}add/", asked | {"is_private": "on"})
    made = PriceSource.objects.get()
    admin_client.post(page, {"action": "read_now", "_selected_action": [made.pk]})
    # then
    assert open_now() == 1
    # and switched off it alerts no more and is not read
    del asked["is_on"]
    admin_client.post(f"{page}{made.pk}/change/", asked | {"is_private": "on"})
    assert (open_now(), alert()) == (0, True)
    assert price_sources.read_due(now=NOON + timedelta(days=400)) == 0
