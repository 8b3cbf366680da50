"""Secrets are encrypted, replaced, rotated and never half used."""

from io import StringIO

import pytest
from cryptography.fernet import Fernet
from django.core.management import call_command
from pytest_django import Settings

from providers import credentials, offers
from providers.models import Credential, Provider
from tests.providers.market import NOW, make_offer, publish

pytestmark = pytest.mark.django_db


def _provider() -> Provider:
    offer = make_offer()
    publish(offer.sku, ("1", "1", "1"))
    return offer.provider


def test_a_new_credential_replaces_the_old_one() -> None:
    # given
    provider = _provider()
    credentials.store(provider=provider, label="old", secret="sk-old-1111")

    # when
    new = credentials.store(provider=provider, label="new", secret="  sk-new-2222\n")

    # then
    assert credentials.usable() == {provider.pk: new}
    assert new.last_four == "2222"
    assert credentials.decrypt(new.ciphertext) == "sk-new-2222"
    assert b"sk-new" not in bytes(new.ciphertext)


@pytest.mark.parametrize("secret", ["", "   ", "two\nlines", "x" * 5_000])
def test_what_is_no_credential_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="one line"):
        credentials.store(provider=_provider(), label="bad", secret=secret)


def test_keys_are_rotated_by_putting_a_new_one_first(settings: Settings) -> None:
    # given
    credential = credentials.store(provider=_provider(), label="main", secret="sk-secret")
    fresh = Fernet.generate_key().decode()
    settings.CREDENTIAL_KEYS = [fresh, *settings.CREDENTIAL_KEYS]

    # when
    said = StringIO()
    call_command("rotate_credentials", stdout=said)

    # then
    settings.CREDENTIAL_KEYS = [fresh]
    credential.refresh_from_db()
    assert said.getvalue() == "1 secrets rotated\n"
    assert credentials.decrypt(credential.ciphertext) == "sk-secret"


def test_a_credential_nobody_can_open_makes_its_offers_not_routable(
    settings: Settings,
) -> None:
    # given
    credentials.store(provider=_provider(), label="main", secret="sk-secret")
    settings.CREDENTIAL_KEYS = [Fernet.generate_key().decode()]

    # when
    (view,) = offers.views(NOW)

    # then
    assert view.not_routable == "no configured key opens this credential"
    assert view.headers == {}


def test_a_dead_credential_is_not_used() -> None:
    # given
    provider = _provider()
    credentials.store(provider=provider, label="main", secret="sk-secret")

    # when
    credentials.mark_dead(provider_id=provider.pk, reason="answered 401", seen_at=NOW)

    # then
    (view,) = offers.views(NOW)
    assert view.not_routable == offers.NO_CREDENTIAL
    assert Credential.objects.get().dead_reason == "answered 401"
