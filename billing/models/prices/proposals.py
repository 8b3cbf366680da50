"""Price changes that wait for a person, and where a second source says another price."""

from django.db import models

from billing.kinds import ServiceTier
from billing.models.prices.versions import PriceVersion


class PriceProposal(models.Model):
    """One change that an import would make. Nothing changes before somebody approves it."""

    class Kind(models.TextChoices):
        NEW = "new"
        CHANGE = "change"
        END = "end", "no longer listed"

    class State(models.TextChoices):
        PENDING = "pending"
        APPROVED = "approved"
        REJECTED = "rejected"
        SUPERSEDED = "superseded", "superseded by a newer import"

    sku = models.CharField(max_length=200)
    service_tier = models.SmallIntegerField(
        choices=ServiceTier.choices(), default=ServiceTier.DEFAULT.value
    )
    context_over = models.IntegerField(default=0)
    from_minute = models.SmallIntegerField(default=0)
    to_minute = models.SmallIntegerField(default=0)
    kind = models.CharField(max_length=8, choices=Kind)
    # Null means from its approval on.
    begins_at = models.DateTimeField(null=True)
    # Null where the price ends.
    rates = models.JSONField(null=True)
    # What was in force when it was proposed.
    replaces = models.ForeignKey(
        PriceVersion, on_delete=models.PROTECT, null=True, related_name="proposals"
    )
    # The greatest change of a rate, in parts per million; null where there is nothing to compare.
    change_ppm = models.BigIntegerField(null=True)
    source = models.CharField(max_length=120)
    state = models.CharField(max_length=10, choices=State, default=State.PENDING)
    proposed_at = models.DateTimeField()
    decided_at = models.DateTimeField(null=True)
    decided_by = models.CharField(max_length=150, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=[
                    "sku",
                    "service_tier",
                    "context_over",
                    "from_minute",
                    "to_minute",
                    "begins_at",
                ],
                condition=models.Q(state="pending"),
                nulls_distinct=False,
                name="price_proposal_one_pending",
            ),
        ]
        indexes = [models.Index(fields=["state", "-proposed_at"])]

    def __str__(self) -> str:
        return f"{self.kind} of {self.sku}"


class PriceDisagreement(models.Model):
    """A rate of ours that differs from a second source's by more than one per cent."""

    sku = models.CharField(max_length=200)
    rate = models.CharField(max_length=24)
    source = models.CharField(max_length=120)
    ours_pico = models.BigIntegerField()
    theirs_pico = models.BigIntegerField()
    found_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    # When the two agreed again.
    ended_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["sku", "rate", "source"],
                condition=models.Q(ended_at=None),
                name="price_disagreement_once",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.rate} of {self.sku}"
