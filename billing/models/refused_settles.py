"""Settles that Redis refused for good: served and told to callers, and not booked."""

from django.db import models


class RefusedSettle(models.Model):
    """One of them, whole, until it is booked after all or a person lets it go."""

    class State(models.TextChoices):
        WAITING = "waiting"
        BOOKED = "booked"
        LET_GO = "let_go", "let go"

    request_id = models.UUIDField(primary_key=True)
    # No constraint: one that names nobody must not keep back those behind it.
    tenant = models.ForeignKey(
        "billing.Tenant",
        null=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        related_name="+",
    )
    record = models.BinaryField()
    charge_pico = models.DecimalField(max_digits=38, decimal_places=0)
    reason = models.CharField(max_length=400)
    settled_at = models.DateTimeField()
    refused_at = models.DateTimeField()
    state = models.CharField(max_length=8, choices=State, default=State.WAITING, db_index=True)
    resolved_at = models.DateTimeField(null=True)
    resolved_by = models.CharField(max_length=150, blank=True)

    def __str__(self) -> str:
        return str(self.request_id)
