"""Secrets for calling providers, encrypted at rest. Plain text never leaves `credentials.py`."""

from django.db import models

from billing.snapshot_rows import SnapshotRow


class Credential(SnapshotRow):
    not_in_snapshot = frozenset({"label", "last_four", "doubted_at"})

    provider = models.ForeignKey(
        "providers.Provider", on_delete=models.CASCADE, related_name="credentials"
    )
    label = models.CharField(max_length=80)
    ciphertext = models.BinaryField()
    # The last four characters, so that a person can tell two keys apart.
    last_four = models.CharField(max_length=4)
    active = models.BooleanField(default=True)
    # Set when the provider refused the credential itself: dead until an operator replaces it.
    dead_reason = models.CharField(max_length=200, blank=True, default="")
    # Set when a refusal did not say whether it was about the credential: the next check asks.
    doubted_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    rotated_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.provider_id} {self.label} …{self.last_four}"
