"""Who changed what: prices, keys, quotas, members. Append-only; a trigger refuses the rest."""

from django.db import models


class AuditEntry(models.Model):
    """One change that a person or a service made. `before` is null for what was made, `after`
    for what was removed; both hold the fields that matter, money as integer pico-dollars."""

    tenant = models.ForeignKey(
        "billing.Tenant", on_delete=models.PROTECT, null=True, related_name="+"
    )
    actor = models.CharField(max_length=150)
    action = models.CharField(max_length=60)
    subject = models.CharField(max_length=200)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    reason = models.CharField(max_length=400, blank=True, default="")
    occurred_at = models.DateTimeField()

    class Meta:
        verbose_name = "change"
        verbose_name_plural = "who changed what"
        indexes = [
            models.Index(fields=["tenant", "-occurred_at"]),
            models.Index(fields=["action", "-id"], name="audit_action"),
        ]

    def __str__(self) -> str:
        return f"{self.actor}: {self.action} {self.subject}"
