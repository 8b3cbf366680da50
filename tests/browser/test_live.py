"""Live pages: what happens is seen without a reload, and nothing that a person opened is closed."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.utils import timezone
from playwright.sync_api import expect

from gateway.models import ApiKey
from providers.boards import leaderboards
from tests.browser.conftest import Visit
from tests.gateway.console_rows import Priced, measured, offer, refused, served
from tests.people import Person

pytestmark = pytest.mark.browser
LIVE = "[data-live][data-state=live]"


def test_a_request_shows_up_by_itself(
    visit: Callable[..., Visit], alice: Person, sold: Priced
) -> None:
    # given the open list, connected
    page = visit(alice).open("/requests/")
    page.wait_for_selector(LIVE)
    rows = page.locator("#list tbody tr")
    expect(rows).to_have_count(23)

    # when
    event = served(alice.tenant, sold, at=timezone.now())

    # then
    expect(rows).to_have_count(24)
    expect(rows.first).to_have_attribute("data-row", str(event.request_id))
    expect(rows.first).to_contain_text("$0.000\u2009180\u2009800")


def test_a_refused_request_shows_up_too(
    visit: Callable[..., Visit], alice: Person, sold: Priced
) -> None:
    page = visit(alice).open("/requests/")
    page.wait_for_selector(LIVE)

    refused(alice.tenant, at=timezone.now(), status=429, code="rate_limited")

    expect(page.locator("#list tbody tr").first).to_contain_text("429 · rate limited")


def test_the_overview_and_its_chart_follow(
    visit: Callable[..., Visit], alice: Person, sold: Priced
) -> None:
    page = visit(alice).open("/overview/")
    page.wait_for_selector(LIVE)
    page.wait_for_selector("[data-chart] svg")

    event = served(alice.tenant, sold, at=timezone.now())

    expect(page.locator(f"#latest tr[data-row='{event.request_id}']")).to_be_visible()
    expect(page.locator("[data-chart] svg")).to_be_visible()


def test_a_refresh_leaves_open_what_was_opened(
    visit: Callable[..., Visit], alice: Person, sold: Priced
) -> None:
    # given the chart's table opened
    page = visit(alice).open("/overview/")
    page.wait_for_selector(LIVE)
    page.locator("#overview summary", has_text="As a table").click()

    # when the page refreshes itself
    event = served(alice.tenant, sold, at=timezone.now())
    expect(page.locator(f"#latest tr[data-row='{event.request_id}']")).to_be_visible()

    # then
    expect(page.locator("#overview details")).to_have_attribute("open", "")


def test_the_board_follows_what_is_measured(visit: Callable[..., Visit], sold: Priced) -> None:
    # given
    page = visit().open("/models/small/")
    page.wait_for_selector(LIVE)
    newcomer = offer("zeta", "small", input_pico=1_000, cached_pico=500, output_pico=2_000)
    measured(newcomer, at=timezone.now(), requests=40, tps=300.0, ttft_ms=20.0)

    # when
    leaderboards.refresh(now=timezone.now() + timedelta(seconds=1))

    # then it stands first, and the chart has its point
    expect(page.locator("#board tbody tr").first).to_contain_text("Zeta")
    expect(page.locator("#board [data-kind=speed] svg")).to_contain_text("Zeta")


def test_the_first_run_waits_for_the_request_and_shows_its_cost(
    visit: Callable[..., Visit], alice: Person
) -> None:
    # given a tenant without a request, and a key made on the page
    model = offer()
    page = visit(alice).open("/overview/")
    page.get_by_role("button", name="Make a key").click()
    secret = page.locator("#secret").inner_text()
    expect(page.locator("#curl")).to_contain_text(f"Bearer {secret}")
    expect(page.get_by_text("Waiting for the first request")).to_be_visible()
    page.wait_for_selector(LIVE)

    # when the request of that key arrives
    served(alice.tenant, model, at=timezone.now(), key_id=ApiKey.objects.get().pk)

    # then it is there, and so is the secret still
    expect(page.locator("#arrived")).to_contain_text("$0.000\u2009212\u2009600")
    expect(page.locator("#secret")).to_have_text(secret)


def test_a_hidden_tab_holds_no_connection(
    visit: Callable[..., Visit], alice: Person, sold: Priced
) -> None:
    page = visit(alice).open("/requests/")
    page.wait_for_selector(LIVE)

    page.evaluate(
        "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )

    expect(page.locator("[data-live]")).to_have_attribute("data-state", "static")
    expect(page.locator("[data-live]")).to_contain_text("paused")


def test_a_page_left_open_after_signing_out_asks_to_sign_in(
    visit: Callable[..., Visit], alice: Person, sold: Priced
) -> None:
    # given the open list, and the session ended elsewhere
    window = visit(alice)
    page = window.open("/requests/")
    page.wait_for_selector(LIVE)
    Session.objects.all().delete()

    # when something happens
    served(alice.tenant, sold, at=timezone.now())

    # then the list is not replaced by another page's part: the person is led to sign in
    page.wait_for_url("**/login/?next=/requests/")
