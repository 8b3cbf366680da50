"""What was measured: rollups per offer and time span, and the boards computed from them."""

from django.db import models


class MeasurementRollup(models.Model):
    """All attempts of one offer in one UTC minute, hour or day. Percentiles come from histograms.

    Each attempt counts once in each span. Histograms are integer counts, by caller, over the
    log-spaced buckets of `providers.boards.histograms`; times are on the gateway's clock.
    """

    class Span(models.TextChoices):
        MINUTE = "minute"
        HOUR = "hour"
        DAY = "day"

    offer = models.ForeignKey("providers.Offer", on_delete=models.CASCADE)
    span = models.CharField(max_length=8, choices=Span)
    start = models.DateTimeField()
    requests = models.IntegerField(default=0)
    succeeded = models.IntegerField(default=0)
    failed = models.IntegerField(default=0)
    cancelled = models.IntegerField(default=0)
    errors = models.JSONField(default=dict)
    # Minutes with a verdict, and those of them in which an attempt succeeded: uptime.
    minutes_seen = models.IntegerField(default=0)
    minutes_up = models.IntegerField(default=0)
    # Which minutes these are, a bit each; of hours only.
    seen_bits = models.BigIntegerField(default=0)
    up_bits = models.BigIntegerField(default=0)
    # Of what was served and posted; and the same by caller and size, see
    # `providers.boards.weights`.
    input_tokens = models.BigIntegerField(default=0)
    cached_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    # What was charged, and for how many output tokens: also for what was cut or cancelled.
    paid_output_tokens = models.BigIntegerField(default=0)
    cost_pico = models.BigIntegerField(default=0)
    drafted_tokens = models.BigIntegerField(default=0)
    accepted_tokens = models.BigIntegerField(default=0)
    target_steps = models.BigIntegerField(default=0)
    served = models.JSONField(default=dict)
    ttft_ms_histogram = models.JSONField(default=dict)
    output_tps_histogram = models.JSONField(default=dict)
    e2e_ms_histogram = models.JSONField(default=dict)
    last_at = models.DateTimeField()
    # When the row was written last: a refresh takes up only what is newer than itself.
    updated_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["offer", "span", "start"], name="rollup_unique"),
        ]
        indexes = [models.Index(fields=["span", "start"])]

    def __str__(self) -> str:
        return f"{self.offer_id} {self.span} {self.start:%Y-%m-%d %H:%M}"


class MeasurementCursor(models.Model):
    """The last usage event that is in the rollups. There is one row."""

    event_id = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return str(self.event_id)


class CountedTexts(models.Model):
    """The newest texts that an offer's seller counted, packed by `billing.samples`: features and
    counts. `event_id` is the last usage event of the batch that changed it, and only grows."""

    offer = models.OneToOneField("providers.Offer", on_delete=models.CASCADE, primary_key=True)
    samples = models.BinaryField()
    event_id = models.BigIntegerField(db_index=True)

    class Meta:
        verbose_name_plural = "counted texts"

    def __str__(self) -> str:
        return f"{self.offer_id} up to {self.event_id}"


class Leaderboard(models.Model):
    """The latest ranked rows of one model's board; replaced whole by a refresh.

    The shapes of `mix`, `facts` and `rows` are in docs/leaderboards-api.md.
    """

    model = models.ForeignKey("providers.Model", on_delete=models.CASCADE)
    window = models.CharField(max_length=4)
    computed_at = models.DateTimeField()
    mix = models.JSONField(default=dict)
    facts = models.JSONField(default=dict)
    rows = models.JSONField(default=list)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["model", "window"], name="leaderboard_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.model_id} {self.window}"


class HomeBoard(models.Model):
    """The leading models, one row each; the first page of the board. There is one row."""

    computed_at = models.DateTimeField()
    rows = models.JSONField(default=list)

    def __str__(self) -> str:
        return f"{self.computed_at:%Y-%m-%d %H:%M:%S}"
