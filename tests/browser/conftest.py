"""A real Chromium against the console as it runs in life: granian, its own process, real services.

The server reads the test database, so rows are committed (transactional_db); each test makes its
own. A page that logs an error, or breaks the content policy, fails its test.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit
from urllib.request import urlopen

import pytest
import redis
from django.conf import settings
from django.db import connection
from django.test import Client
from django.utils import timezone
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from gateway import env
from tests.browser.market import make_market
from tests.gateway.console_rows import Priced
from tests.patience import PATIENCE_S, eventually
from tests.people import Person, owner
from tests.ports import free_port

PATIENCE_MS: Final = PATIENCE_S * 1000
expect.set_options(timeout=PATIENCE_MS)
CHROMIUM_FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP: Final = {"width": 1280, "height": 900}
PHONE: Final = {"width": 360, "height": 780}


@pytest.fixture(scope="session")
def console_url(django_db_setup: None) -> Iterator[str]:
    """The console's own server over the test database; ended before the database goes."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        **env.inherited(),
        "DATABASE_URL": _test_database_url(),
        "TOKENHOUSE_CONSOLE_PORT": str(port),
    }
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--no-ws"]
    command += ["--host", "127.0.0.1", "--port", str(port), "gateway.asgi:application"]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        eventually(lambda: _is_up(url, process))
        yield url
    finally:
        # Politely, so that its worker gives back its connections before the database is dropped.
        process.terminate()
        process.wait(timeout=PATIENCE_S)


def _test_database_url() -> str:
    parts = urlsplit(settings.DATABASE_URL)
    name = connection.settings_dict["NAME"]
    # urlunsplit drops the empty host of a unix-socket address where there is no user either.
    return urlunsplit((parts.scheme, parts.netloc, f"/{name}", parts.query, ""))


def _is_up(url: str, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, "the console did not start"
    try:
        with urlopen(f"{url}/health", timeout=PATIENCE_S):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of one module: Playwright keeps an event loop running, which async tests could not bear."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "browser tests need Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium, args=list(CHROMIUM_FLAGS), timeout=PATIENCE_MS
        )
        yield started
        started.close()


@pytest.fixture(autouse=True)
def _orm_beside_playwright(monkeypatch: pytest.MonkeyPatch) -> None:
    """Playwright's own loop makes Django think that the test itself is asynchronous."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")


@dataclass
class Visit:
    """A person's browser window; `complaints` is what the pages logged."""

    context: BrowserContext
    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str) -> Page:
        self.page.goto(f"{self.url}{path}", wait_until="load")
        return self.page


@pytest.fixture
def visit(
    browser: Browser, console_url: str, transactional_db: None
) -> Iterator[Callable[..., Visit]]:
    """Opens windows, signed in or not, and closes them; fails on what their pages complained of."""
    opened: list[Visit] = []

    def make(person: Person | None = None, *, phone: bool = False, **options: Any) -> Visit:
        context = browser.new_context(
            viewport=PHONE if phone else DESKTOP,  # type: ignore[arg-type]
            device_scale_factor=2 if phone else 1,
            base_url=console_url,
            **options,
        )
        context.set_default_timeout(PATIENCE_MS)
        if person is not None:
            _sign_in(context, person, console_url)
        made = Visit(context=context, page=context.new_page(), url=console_url)
        made.page.on(
            "console",
            lambda m: made.complaints.append(m.text) if m.type in ("error", "warning") else None,
        )
        made.page.on("pageerror", lambda error: made.complaints.append(str(error)))
        opened.append(made)
        return made

    yield make
    for each in opened:
        each.context.close()
    assert [each.complaints for each in opened] == [[] for _ in opened]


def _sign_in(context: BrowserContext, person: Person, url: str) -> None:
    client = Client()
    client.force_login(person.user)
    cookie = client.cookies[settings.SESSION_COOKIE_NAME]
    context.add_cookies([{"name": cookie.key, "value": cookie.value, "url": url}])


@pytest.fixture
def alice(transactional_db: None, redis_client: redis.Redis) -> Person:
    """The same Alice, in committed rows that the server sees."""
    return owner("alice", "Aurora")


@pytest.fixture
def sold(alice: Person) -> Priced:
    """Two in-house offers and an outside one of a model, measured, with Alice's requests."""
    return make_market(alice, now=timezone.now())
