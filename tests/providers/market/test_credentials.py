"""Secrets are encrypted, replaced, rotated and never half used."""

from io import StringIO

import pytest
from cryptography.fernet import Fernet
from django.core.management import call_command
from pytest_django import Settings

from providers.machines import checks
from providers.market import credentials, offers
from providers.models import Credential, Offer, Provider
from tests.providers.made_offers import NOW, make_offer, publish

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
    assert credentials.active() == {provider.pk: new}
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


def test_a_pool_whose_credential_died_is_not_called_without_it() -> None:
    # given
    provider = _provider()
    Provider.objects.update(kind=Provider.Kind.POOL)
    credentials.store(provider=provider, label="pool", secret="pool-secret")

    # when
    credentials.mark_dead(provider_id=provider.pk, reason="answered 401", seen_at=NOW)

    # then
    (view,) = offers.views(NOW)
    assert (view.not_routable, view.headers) == ("its credential was refused: answered 401", {})
    assert not any(checks._pool_targets())


def test_credential_address_and_limits_make_another_generation_and_nothing_else_does() -> None:
    # given
    provider = _provider()
    generations = []

    def look() -> None:
        (view,) = offers.views(NOW)
        generations.append(view.generation)

    # when
    look()
    for _ in range(2):  # the same secret stored again says that it was mended elsewhere
        credentials.store(provider=provider, label="main", secret="sk-secret")
        look()
    for change in (
        {"base_url": "https://elsewhere.test/v1"},
        {"context_length": 4_096},
        {"max_output_tokens": 512},
        {"upstream_model": "renamed"},
    ):
        Offer.objects.update(**change)
        look()
    # then
    assert len(set(generations)) == len(generations)
    assert not any("sk-secret" in generation for generation in generations)
    # and a fresh load of the same is the same
    look()
    assert generations[-1] == generations[-2]


def test_another_address_clears_what_was_held_against_the_credential() -> None:
    # given
    provider = _provider()
    credentials.store(provider=provider, label="main", secret="sk-secret")
    credentials.mark_dead(provider_id=provider.pk, reason="answered 401", seen_at=NOW)

    # when
    credentials.clear_marks(provider_id=provider.pk)

    # then
    (view,) = offers.views(NOW)
    assert (view.not_routable, view.headers) == ("", {"authorization": "Bearer sk-secret"})


def test_a_dead_credential_is_not_used() -> None:
    # given
    provider = _provider()
    credentials.store(provider=provider, label="main", secret="sk-secret")

    # when
    credentials.mark_dead(provider_id=provider.pk, reason="answered 401", seen_at=NOW)

    # then
    (view,) = offers.views(NOW)
    assert view.not_routable == "its credential was refused: answered 401"
    assert view.headers == {}
    assert Credential.objects.get().dead_reason == "answered 401"
