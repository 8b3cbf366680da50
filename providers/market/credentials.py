"""Secrets for calling providers and workers: encrypted at rest, opened only for the snapshot.

The first key of `settings.CREDENTIAL_KEYS` encrypts; all of them decrypt, so that a key is
rotated by putting a new one first and calling `rotate_all`.
"""

from collections.abc import Mapping
from datetime import datetime

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from providers.models import Credential, Provider, Worker

SECRET_LENGTH_MAX = 4096


class CredentialUnreadable(ValueError):
    """No configured key opens this ciphertext."""


def _cipher() -> MultiFernet:
    return MultiFernet([Fernet(key) for key in settings.CREDENTIAL_KEYS])


def encrypt(secret: str) -> bytes:
    return _cipher().encrypt(secret.encode())


def decrypt(ciphertext: bytes | memoryview) -> str:
    try:
        return _cipher().decrypt(bytes(ciphertext)).decode()
    except InvalidToken:
        raise CredentialUnreadable("no configured key opens this credential") from None


def store(*, provider: Provider, label: str, secret: str) -> Credential:
    """Add a credential; it becomes the provider's only active one."""
    secret = secret.strip()
    if not secret or len(secret) > SECRET_LENGTH_MAX or not secret.isprintable():
        raise ValueError("a credential is one line of 1 to 4096 printable characters")
    with transaction.atomic():
        provider.credentials.filter(active=True).update(active=False)
        credential = Credential.objects.create(
            provider=provider, label=label, ciphertext=encrypt(secret), last_four=secret[-4:]
        )
    return credential


def mark_dead(*, provider_id: int, reason: str, seen_at: datetime) -> bool:
    """Take the credential that a provider refused out of use until an operator replaces it.

    One that was stored after the refusal is not the one that was refused.
    """
    marked = _refused(provider_id, seen_at).update(dead_reason=reason[:200], doubted_at=None)
    return bool(marked)


def doubt(*, provider_id: int, seen_at: datetime) -> None:
    """A refusal that may have been of one request only: the next check asks the provider."""
    _refused(provider_id, seen_at).filter(doubted_at=None).update(doubted_at=seen_at)


def _refused(provider_id: int, seen_at: datetime) -> QuerySet[Credential]:
    return Credential.objects.filter(
        provider_id=provider_id, active=True, dead_reason="", created_at__lt=seen_at
    )


def clear_marks(*, provider_id: int) -> None:
    """What another address said of a credential says nothing of it at the present one."""
    Credential.objects.filter(provider_id=provider_id, active=True).update(
        dead_reason="", doubted_at=None
    )


def rotate_all(*, now: datetime) -> int:
    """Encrypt every stored secret anew with the first key; returns how many."""
    cipher = _cipher()
    with transaction.atomic():
        credentials = list(Credential.objects.select_for_update())
        for credential in credentials:
            credential.ciphertext = cipher.rotate(bytes(credential.ciphertext))
            credential.rotated_at = now
        Credential.objects.bulk_update(credentials, ["ciphertext", "rotated_at"])
        workers = list(Worker.objects.select_for_update())
        for worker in workers:
            worker.bearer_ciphertext = cipher.rotate(bytes(worker.bearer_ciphertext))
        Worker.objects.bulk_update(workers, ["bearer_ciphertext"])
    return len(credentials) + len(workers)


def active() -> Mapping[int, Credential]:
    """The active credential of each provider, by provider id, dead or not; still encrypted. Where
    it is dead the provider is not called: without one would be another call than was meant."""
    rows = Credential.objects.filter(active=True).order_by("created_at")
    return {row.provider_id: row for row in rows}
