"""Counts that came after the charge: what an engine said of attempts charged at an estimate."""

from django.db import models
from django.db.models import F, Q


class TrueUp(models.Model):
    """What one attempt was charged, and what it is due by its engine's count: never more. The note
    gives back what lies between; absent where nothing does, or until the next notes are posted.
    Immutable but for that."""

    request_id = models.UUIDField()
    attempt = models.SmallIntegerField()
    day = models.DateField()
    tenant = models.ForeignKey("billing.Tenant", on_delete=models.PROTECT, db_index=False)
    input_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    charged_pico = models.BigIntegerField()
    due_pico = models.BigIntegerField()
    counted_at = models.DateTimeField()
    note = models.ForeignKey(
        "billing.AdjustmentNote", on_delete=models.PROTECT, null=True, related_name="true_ups"
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["request_id", "attempt"], name="true_up_once"),
            models.CheckConstraint(
                condition=Q(due_pico__gte=0, due_pico__lte=F("charged_pico")),
                name="true_up_downwards",
            ),
        ]
        indexes = [
            models.Index(
                fields=["tenant", "id"],
                condition=Q(note=None, due_pico__lt=F("charged_pico")),
                name="true_up_open",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.request_id}/{self.attempt}"

    @property
    def given_back_pico(self) -> int:
        return self.charged_pico - self.due_pico
