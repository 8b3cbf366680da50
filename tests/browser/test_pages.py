"""Every page, in both themes and on a phone: accessible, nothing sticks out, no errors."""

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.utils import timezone
from playwright.sync_api import Page

from billing.models import UsageEvent
from gateway.models import Refusal
from providers.boards import leaderboards
from providers.machines import workers
from providers.models import Worker
from tests.browser.conftest import Visit
from tests.gateway.console_rows import Priced
from tests.people import Person

pytestmark = pytest.mark.browser

PAGES = (
    "/",
    "/models/small/",
    "/overview/",
    "/requests/",
    "/keys/",
    "/budgets/",
    "/billing/",
    "/members/",
    "/routing/",
    "/start/",
    "/playground/",
    "/switching/",
    "/selling/",
    "/requests/{served}/",
    "/requests/{refused}/",
    "/account/",
    "/account/password/",
    "/account/second-factor/",
    "/account/second-factor/app/",
)
CHART_TEXT_PX_LEAST = 11
COSTS = {
    "weight_bytes": 98_000_000,
    "full_weight_bytes": 538_000_000,
    "draft_bytes": 1_200_000,
    "expert_bytes": 400_000_000,
    "active_expert_bytes": 100_000_000,
    "calibrated": {
        "steps": 500,
        "output_tokens": 700,
        "busy_seconds": 8.0,
        "draft_seconds": 0.08,
        "dispatch_seconds": 0.8,
    },
    "gaps": {"alone": {"p95_ms": 4.0, "n": 63}},
}


def _addresses() -> list[str]:
    failed_over = UsageEvent.objects.get(attempt=2)
    refusal = Refusal.objects.get()
    return [
        page.format(served=failed_over.request_id, refused=refusal.request_id) for page in PAGES
    ]


def _settle(page: Page) -> None:
    """Fonts are there, and charts where a page has any."""
    page.evaluate("document.fonts.ready.then(() => true)")
    if page.locator("[data-chart]").count():
        page.wait_for_selector("[data-chart] svg")


def _violations(page: Page) -> list[tuple[str, Any]]:
    found = Axe().run(page).response["violations"]
    return [(v["id"], [node["target"] for node in v["nodes"]]) for v in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible(
    scheme: str, visit: Callable[..., Visit], alice: Person, sold: Priced
) -> None:
    window = visit(alice, color_scheme=scheme)

    for address in _addresses():
        page = window.open(address)
        _settle(page)
        assert (address, _violations(page)) == (address, [])


def test_nothing_sticks_out_on_a_phone(
    visit: Callable[..., Visit], alice: Person, sold: Priced
) -> None:
    window = visit(alice, phone=True)

    for address in _addresses():
        page = window.open(address)
        _settle(page)
        widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert (address, widths) == (address, [360, 360])
        assert (address, _violations(page)) == (address, [])


def test_the_sign_in_page_is_accessible(visit: Callable[..., Visit]) -> None:
    for phone in (False, True):
        page = visit(phone=phone).open("/login/")
        assert _violations(page) == []


def test_text_in_charts_is_never_too_small(
    visit: Callable[..., Visit], alice: Person, sold: Priced
) -> None:
    for phone in (False, True):
        window = visit(alice, phone=phone)
        for address in ("/models/small/", "/overview/"):
            page = window.open(address)
            page.wait_for_selector("[data-chart] svg text")
            # In one step: a chart that is drawn anew in between would leave detached texts.
            sizes = page.evaluate(
                "[...document.querySelectorAll('[data-chart] svg text')]"
                ".map(text => parseFloat(getComputedStyle(text).fontSize))"
            )
            assert min(sizes) >= CHART_TEXT_PX_LEAST


def test_pages_can_be_read_without_a_script(
    visit: Callable[..., Visit], alice: Person, sold: Priced
) -> None:
    window = visit(alice, java_script_enabled=False)

    assert window.open("/models/small/").locator("#board tbody tr[data-row]").count() == 3
    assert window.open("/requests/").locator("#list tbody tr").count() == 23
    assert "$0.000" in window.open("/overview/").locator("#latest").inner_text()


def test_the_theme_can_be_set_and_stays(visit: Callable[..., Visit], alice: Person) -> None:
    # given a system in light
    window = visit(alice, color_scheme="light")
    page = window.open("/keys/")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")

    # when the button goes from system over light to dark
    for _ in range(2):
        page.get_by_role("button", name="theme, change to").click()

    # then it is dark, here and on the next page
    for address in ("/keys/", "/"):
        page = window.open(address)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
        # Scroll bars and fields are the browser's own: they follow too.
        assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"


@pytest.mark.parametrize(
    ("scheme", "in_house"), [("light", "rgb(10,107,77)"), ("dark", "rgb(66,207,151)")]
)
def test_charts_are_drawn_in_the_colours_of_the_theme(
    scheme: str, in_house: str, visit: Callable[..., Visit], alice: Person, sold: Priced
) -> None:
    window = visit(alice, color_scheme=scheme)

    for address in ("/models/small/", "/overview/"):
        page = window.open(address)
        page.wait_for_selector("[data-chart] svg")
        assert in_house in page.locator("[data-chart]").first.inner_html().replace(", ", ",")


def test_the_open_page_is_in_sight_in_the_navigation_of_a_phone(
    visit: Callable[..., Visit], alice: Person
) -> None:
    page = visit(alice, phone=True).open("/playground/")

    [left, right] = page.evaluate(
        "(place => [place.left, place.right])"
        "(document.querySelector('.nav [aria-current]').getBoundingClientRect())"
    )
    assert page.locator(".nav [aria-current]").inner_text() == "Playground"
    assert 0 <= left < right <= 360


def test_a_table_is_sorted_by_keyboard_alone(visit: Callable[..., Visit], sold: Priced) -> None:
    page = visit().open("/models/small/")

    page.locator("#sort-speed").focus()
    page.keyboard.press("Enter")

    page.wait_for_url("**sort=speed**")
    first = page.locator("#board tbody tr[data-row]").first
    assert first.get_attribute("data-row") == "in-house/small/ngram"
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("Speed p50")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_techniques_cost_is_read_on_a_phone(
    scheme: str, visit: Callable[..., Visit], sold: Priced
) -> None:
    # given an offer whose engine told what its techniques cost
    key, _ = workers.issue_key(
        label="test", allowed_network="127.0.0.0/8", created_by="test", now=timezone.now()
    )
    now = timezone.now()
    Worker.objects.create(
        name="ngram",
        key=key,
        offer=sold.offer,
        base_url="http://127.0.0.1:8101",
        bearer_ciphertext=b"",
        usd_per_hour_pico=10**11,
        usd_per_hour_source="assumed",
        techniques=["ngram-speculation", "sparse-experts"],
        engine={"costs": COSTS},
        registered_at=now,
        heartbeat_at=now,
    )
    leaderboards.refresh(now=now)

    # when
    page = visit(phone=True, color_scheme=scheme).open("/models/small/")
    page.get_by_text("what its techniques cost").click()

    # then
    words = page.locator("[data-costs] dl").inner_text().replace("\u2009", " ")
    assert "98 MB, 538 MB in fp32" in words
    assert "1 % of a step, for 1.40 tokens a step" in words
    assert "400 MB all, 100 MB active" in words
    assert "not measured" in words
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert _violations(page) == []
