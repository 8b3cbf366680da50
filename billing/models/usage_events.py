"""Usage events: one immutable metered fact per attempt, unique by (request, attempt, day)."""

from django.db import models


class UsageEvent(models.Model):
    """What one attempt used and cost. `detail` is opaque to billing: speed, outcome, routing.

    Token counts are canonical and inclusive: `input_tokens` contains the cache and audio
    parts, `output_tokens` contains reasoning. `rated_pico` is usage × price;
    `tenant_cost_pico` is what the tenant pays of it, `overage_pico` what the house pays.
    `charged_nano` is what Redis debited. A negative attempt, -(n + 1), is the expiry of attempt
    n: what was charged when its owner fell silent; a late settle then posts the difference.
    """

    class State(models.TextChoices):
        POSTED = "posted"
        QUARANTINED = "quarantined"

    request_id = models.UUIDField()
    attempt = models.SmallIntegerField()
    day = models.DateField()
    # That tenant and price exist is checked once per statement, by a trigger; that the transfer
    # does, which is written later, by an invariant. Row by row it took as long as all the rest.
    tenant = models.ForeignKey(
        "billing.Tenant", on_delete=models.PROTECT, db_constraint=False, db_index=False
    )
    team_id = models.BigIntegerField(null=True)
    api_key_id = models.BigIntegerField(null=True)
    session_hash = models.CharField(max_length=64, blank=True, default="")
    sku = models.CharField(max_length=200)
    price_version = models.ForeignKey(
        "billing.PriceVersion",
        on_delete=models.PROTECT,
        null=True,
        db_constraint=False,
        db_index=False,
    )
    offer_id = models.BigIntegerField(null=True)
    supplier = models.CharField(max_length=80)
    model = models.CharField(max_length=200)
    outcome = models.CharField(max_length=32)
    usage_source = models.CharField(max_length=16)  # one of billing.basis
    input_tokens = models.BigIntegerField(default=0)
    cache_read_tokens = models.BigIntegerField(default=0)
    cache_write_5m_tokens = models.BigIntegerField(default=0)
    cache_write_1h_tokens = models.BigIntegerField(default=0)
    input_audio_tokens = models.BigIntegerField(default=0)
    input_image_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    reasoning_tokens = models.BigIntegerField(default=0)
    output_audio_tokens = models.BigIntegerField(default=0)
    rated_pico = models.BigIntegerField(default=0)
    tenant_cost_pico = models.BigIntegerField(default=0)
    supplier_cost_pico = models.BigIntegerField(default=0)
    overage_pico = models.BigIntegerField(default=0)
    hold_nano = models.BigIntegerField(default=0)
    charged_nano = models.BigIntegerField(default=0)
    occurred_at = models.DateTimeField()
    settled_at = models.DateTimeField()
    # The stream entry it came from: the same entry again is a redelivery, another a duplicate.
    stream_id = models.CharField(max_length=40)
    body_hash = models.BinaryField(max_length=32)
    detail = models.JSONField(default=dict)
    state = models.CharField(max_length=16, choices=State, default=State.POSTED)
    quarantine_reason = models.CharField(max_length=200, blank=True, default="")
    transfer = models.ForeignKey(
        "billing.Transfer",
        on_delete=models.PROTECT,
        null=True,
        db_constraint=False,
        related_name="usage_events",
    )
    drained_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["request_id", "attempt", "day"], name="usage_event_unique"
            ),
        ]
        indexes = [
            # A tenant's requests, newest first, all and by each filter of the list, and by when
            # they were admitted, which their ids begin with. What ended otherwise than usual has an
            # index of its own, and a small one.
            models.Index(fields=["tenant", "request_id"], name="usage_requests"),
            models.Index(fields=["tenant", "model", "request_id"], name="usage_model_requests"),
            models.Index(
                fields=["tenant", "supplier", "request_id"], name="usage_supplier_requests"
            ),
            models.Index(fields=["tenant", "api_key_id", "request_id"], name="usage_key_requests"),
            models.Index(
                fields=["tenant", "outcome", "request_id"],
                condition=~models.Q(outcome="ok"),
                name="usage_outcome_requests",
            ),
            # The house's list, by its filters; and what a seller's bill may know better than we.
            models.Index(
                fields=["outcome", "request_id"],
                condition=~models.Q(outcome="ok"),
                name="usage_by_outcome",
            ),
            models.Index(fields=["supplier", "request_id"], name="usage_by_supplier"),
            models.Index(
                fields=["supplier", "day"],
                condition=models.Q(outcome="unknown")
                | models.Q(state="quarantined")
                | models.Q(usage_source__in=["estimated", "counted"]),
                name="usage_uncertain",
            ),
            # What an in-house engine may count after all; billing.basis.ESTIMATES.
            models.Index(
                fields=["offer_id", "-drained_at"],
                condition=models.Q(usage_source__in=["recounted", "measured_ratio", "bytes"]),
                name="usage_estimated",
            ),
            # What was written lately, for the invariants. Rows come in the order of this time, many
            # of one moment, so it stays small. A BRIN would be smaller, but where rows come fast
            # its summaries come late, and what has none is read whole.
            models.Index(fields=["drained_at"], name="usage_drained"),
            models.Index(
                fields=["tenant", "-id"],
                condition=models.Q(state="quarantined"),
                name="usage_in_quarantine",
            ),
            # Sealed one by one, once they are decided.
            models.Index(
                fields=["id"],
                condition=~models.Q(quarantine_reason=""),
                name="usage_once_quarantined",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.request_id}/{self.attempt}"
