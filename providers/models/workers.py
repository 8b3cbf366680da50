"""In-house workers as they registered themselves, and the keys that let them."""

from django.db import models

from billing.snapshot_rows import SnapshotRow


class WorkerKey(models.Model):
    """Lets a worker register. Bound to a host or network, so that a holder cannot name any URL."""

    label = models.CharField(max_length=80)
    public_id = models.CharField(max_length=24, unique=True)
    secret_hash = models.BinaryField(max_length=32)
    allowed_network = models.CharField(max_length=64, default="127.0.0.0/8")
    # Models that its workers may sell; empty for any.
    models_allowed = models.JSONField(default=list, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.label


class Worker(SnapshotRow):
    """One registered engine process: the source of one in-house offer."""

    not_in_snapshot = frozenset(
        {
            "usd_per_hour_pico",
            "usd_per_hour_source",
            "techniques",
            "engine",
            "calibration",
            "load",
            "totals",
            "priced_totals",
            "priced_at",
            "wanted_price",
            "heartbeat_at",
            "checked_at",
            "check_failures",
        }
    )

    class RateSource(models.TextChoices):
        ENTERED = "entered"
        PRESET = "preset"
        ASSUMED = "assumed"

    name = models.CharField(max_length=80, unique=True)
    key = models.ForeignKey(WorkerKey, on_delete=models.PROTECT)
    offer = models.OneToOneField("providers.Offer", on_delete=models.PROTECT)
    base_url = models.URLField(max_length=300)
    bearer_ciphertext = models.BinaryField()
    usd_per_hour_pico = models.BigIntegerField()
    usd_per_hour_source = models.CharField(max_length=16, choices=RateSource)
    techniques = models.JSONField(default=list)
    engine = models.JSONField(default=dict)
    calibration = models.JSONField(default=dict)
    load = models.JSONField(default=dict)
    totals = models.JSONField(default=dict)
    # The totals at the last publication of a price: the next one looks at the difference.
    priced_totals = models.JSONField(default=dict)
    priced_at = models.DateTimeField(null=True)
    # What the latest measurement asks for, and why; the price in force follows it in steps.
    wanted_price = models.JSONField(default=dict)
    registered_at = models.DateTimeField()
    heartbeat_at = models.DateTimeField()
    checked_at = models.DateTimeField(null=True)
    check_failures = models.PositiveSmallIntegerField(default=0)

    def __str__(self) -> str:
        return self.name
