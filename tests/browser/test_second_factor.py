"""A second factor as people set it up and give it: in a real browser, with an app and a passkey."""

import re
import time
from collections.abc import Callable

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from django.contrib.auth.hashers import PBKDF2PasswordHasher, make_password
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit
from tests.people import Person

PASSWORD = "correct horse"
pytestmark = pytest.mark.browser


@pytest.fixture
def alice(alice: Person) -> Person:
    """With a password as the console's own process keeps it; tests keep quicker ones."""
    alice.user.password = make_password(PASSWORD, hasher=PBKDF2PasswordHasher())  # type: ignore[arg-type]
    alice.user.save()
    return alice


def sign_in(page: Page, url: str, *, then: str) -> None:
    page.goto(f"{url}/login/?next={then}")
    page.get_by_label("Name").fill("alice")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("main").get_by_role("button", name="Sign in").click()


def sign_out(page: Page) -> None:
    page.get_by_role("button", name="Sign out").click()


def code_of(secret: str, *, steps: int = 0) -> str:
    return format_hotp_value(hotp_value(secret, int(time.time()) // 30 + steps))


def test_an_app_is_set_up_and_asked_for_at_the_next_sign_in(
    alice: Person, visit: Callable[..., Visit]
) -> None:
    # given
    window = visit(color_scheme="dark")
    page = window.page
    sign_in(page, window.url, then="/account/")

    # when it is set up
    page.get_by_role("link", name="Set one up").click()
    page.get_by_role("link", name="Set up an app").click()
    code = page.get_by_alt_text("QR code of the secret below")
    expect(code).to_be_visible()
    expect(code).to_have_css("background-color", "rgb(255, 255, 255)")  # scanners want it light
    secret = page.get_by_label("Secret").input_value()
    page.get_by_label("Code").fill(code_of(secret))
    page.get_by_role("button", name="Turn it on").click()

    # then there are codes for the day on which it is lost, and the session goes on
    page.wait_for_url("**/account/second-factor/codes/")
    [codes] = page.locator("textarea").all()
    recovery = re.findall(r"\d{8}", codes.input_value())
    assert len(recovery) == 10
    page.goto(f"{window.url}/members/")
    expect(page.get_by_text("second factor", exact=True)).to_be_visible()

    # and the next sign-in leads through it, and to where it was to lead
    sign_out(page)
    sign_in(page, window.url, then="/members/")
    page.wait_for_url("**/second-factor/give/?next=%2Fmembers%2F")
    page.get_by_label("Code").fill(code_of(secret, steps=1))
    page.get_by_role("button", name="Go on").click()
    page.wait_for_url("**/members/")

    # and a recovery code does as well
    sign_out(page)
    sign_in(page, window.url, then="/members/")
    page.get_by_label("Code").fill(recovery[0])
    page.get_by_role("button", name="Go on").click()
    page.wait_for_url("**/members/")


def test_a_passkey_is_added_and_given(alice: Person, visit: Callable[..., Visit]) -> None:
    # given a browser with an authenticator, at a name: addresses have no passkeys
    window = visit()
    page, url = window.page, window.url.replace("127.0.0.1", "localhost")
    devtools = window.context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    options = {"protocol": "ctap2", "transport": "internal", "hasResidentKey": True}
    options |= {"hasUserVerification": True, "isUserVerified": True}
    devtools.send(
        "WebAuthn.addVirtualAuthenticator",
        {"options": {**options, "automaticPresenceSimulation": True}},
    )
    sign_in(page, url, then="/account/second-factor/")

    # when
    page.get_by_role("link", name="Add a passkey").click()
    page.get_by_label("Name").fill("laptop")
    page.get_by_role("button", name="Add it").click()
    page.wait_for_url("**/account/second-factor/codes/")
    assert Authenticator.objects.filter(type=Authenticator.Type.WEBAUTHN).count() == 1

    # then
    sign_out(page)
    sign_in(page, url, then="/members/")
    page.get_by_role("link", name="Use a passkey").click()
    page.get_by_role("button", name="Use the passkey").click()
    page.wait_for_url("**/members/")
    expect(page.get_by_role("heading", name="People")).to_be_visible()
