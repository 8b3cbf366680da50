"""What was measured: rollups per offer and minute, and the leaderboards computed from them."""

from django.db import models


class MeasurementRollup(models.Model):
    """All attempts of one offer in one UTC minute. Percentiles come from the histograms.

    Histograms are integer counts over the log-spaced buckets of `providers.measurements`;
    times are on the gateway's clock.
    """

    offer = models.ForeignKey("providers.Offer", on_delete=models.CASCADE)
    minute = models.DateTimeField()
    requests = models.IntegerField(default=0)
    succeeded = models.IntegerField(default=0)
    failed = models.IntegerField(default=0)
    cancelled = models.IntegerField(default=0)
    errors = models.JSONField(default=dict)
    input_tokens = models.BigIntegerField(default=0)
    cached_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cost_pico = models.BigIntegerField(default=0)
    ttft_ms_histogram = models.JSONField(default=dict)
    output_tps_histogram = models.JSONField(default=dict)
    e2e_ms_histogram = models.JSONField(default=dict)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["offer", "minute"], name="rollup_unique"),
        ]
        indexes = [models.Index(fields=["minute"])]

    def __str__(self) -> str:
        return f"{self.offer_id} {self.minute:%Y-%m-%d %H:%M}"


class Leaderboard(models.Model):
    """The latest ranked rows of one board; replaced whole by every refresh."""

    model = models.ForeignKey("providers.Model", on_delete=models.CASCADE)
    window = models.CharField(max_length=4)
    computed_at = models.DateTimeField()
    mix = models.JSONField(default=dict)
    rows = models.JSONField(default=list)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["model", "window"], name="leaderboard_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.model_id} {self.window}"
