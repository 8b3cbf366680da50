"""A provider's key by one line: standard input, the vault, and what can be called then."""

import io
import sys
from datetime import UTC, datetime

import pytest
from django.core.management import CommandError, call_command

from billing.models import AuditEntry
from providers.market import credentials
from providers.models import Credential, Provider

pytestmark = pytest.mark.django_db


@pytest.fixture
def seeded() -> None:
    call_command("seed_catalogue", stdout=io.StringIO())


def add(monkeypatch: pytest.MonkeyPatch, provider: str, secret: str) -> str:
    monkeypatch.setattr(sys, "stdin", io.StringIO(secret))
    said = io.StringIO()
    call_command("add_credential", provider, stdout=said)
    return said.getvalue()


@pytest.mark.usefixtures("seeded")
def test_a_key_from_standard_input_makes_the_models_of_a_provider_callable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # when
    said = add(monkeypatch, "openai", "sk-one-line-1234\n")

    # then
    kept = Credential.objects.get(provider__slug="openai")
    assert credentials.decrypt(kept.ciphertext) == "sk-one-line-1234"
    assert " models can be called now: " in said
    assert "sk-one" not in said
    entry = AuditEntry.objects.get(action="credential.set")
    assert (entry.subject, entry.after) == ("openai", {"label": "main"})
    assert entry.occurred_at <= datetime.now(UTC)


@pytest.mark.usefixtures("seeded")
def test_a_misspelt_provider_is_refused_with_the_name_that_was_meant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(CommandError, match="There are: openai"):
        add(monkeypatch, "opnai", "sk-one-line-1234")
    assert not Credential.objects.exists()


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("secret", ["", "  \n", "two\nlines", "x" * 5_000])
def test_what_is_no_key_is_stored_nowhere(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    with pytest.raises(CommandError, match="one line of 1 to 4096"):
        add(monkeypatch, "openai", secret)
    assert not Credential.objects.exists()
    assert not AuditEntry.objects.filter(action="credential.set").exists()


def test_a_provider_that_sells_nothing_here_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    Provider.objects.create(slug="empty", name="Empty", wire="openai", base_url="https://e.example")

    # then
    assert "it sells nothing here" in add(monkeypatch, "empty", "sk-1")
