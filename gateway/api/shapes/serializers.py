"""Shapes of the management API's bodies. Rules about what they mean live in the services."""

from collections.abc import Sequence
from typing import Any

from rest_framework import serializers

from billing.kinds import Window
from billing.models import ScopeKind
from gateway import kinds
from gateway.api.shapes.money_fields import UsdField
from gateway.models import ApiKey, Team
from gateway.routing.policies import PolicyKind

COUNT_MAX = 2_000_000_000
BYTES_MAX = 10**15
SECONDS_MAX = 1e9
MILLISECONDS_MAX = 1e9


class TenantSerializer(serializers.Serializer[Any]):
    slug = serializers.CharField()
    name = serializers.CharField()
    role = serializers.CharField()


class BalanceSerializer(serializers.Serializer[Any]):
    credit_usd = UsdField(source="credit_pico")
    spent_usd = UsdField(source="spent_pico")
    held_usd = UsdField(source="held_pico")
    left_usd = UsdField(source="left_pico")


class TeamSerializer(serializers.ModelSerializer[Team]):
    class Meta:
        model = Team
        fields = ("slug", "name", "cost_centre")


class TeamChangeSerializer(serializers.ModelSerializer[Team]):
    class Meta:
        model = Team
        fields = ("name", "cost_centre")


KEY_FIELDS = (
    "id",
    "public_id",
    "name",
    "team",
    "scopes",
    "models_allowed",
    "expires_at",
    "revoked_at",
    "created_by",
    "created_at",
)


class KeySerializer(serializers.ModelSerializer[ApiKey]):
    """A key without its secret, which nobody can read back."""

    team = serializers.SlugRelatedField[Team](slug_field="slug", read_only=True)

    class Meta:
        model = ApiKey
        fields: Sequence[str] = KEY_FIELDS


class NewKeySerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=80)
    team = serializers.SlugField(required=False, allow_null=True, default=None)
    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=kinds.SCOPES),
        default=[kinds.INFERENCE],
        max_length=2,
    )
    models_allowed = serializers.ListField(
        child=serializers.CharField(max_length=160), default=list, max_length=200
    )
    expires_at = serializers.DateTimeField(required=False, allow_null=True, default=None)


class IssuedKeySerializer(KeySerializer):
    """The answer to making a key: the only time that `secret` is shown."""

    secret = serializers.CharField(read_only=True)

    class Meta(KeySerializer.Meta):
        fields = (*KEY_FIELDS, "secret")


class ScopeSerializer(serializers.Serializer[Any]):
    scope_kind = serializers.ChoiceField(choices=ScopeKind.choices)
    scope = serializers.CharField(
        max_length=200,
        help_text="The tenant's slug (also for its sessions), a team's slug, the number of a key, "
        "or the name of a model or provider.",
    )


class QuotaSerializer(ScopeSerializer):
    id = serializers.IntegerField(read_only=True)
    window = serializers.ChoiceField(choices=Window.choices())
    limit_usd = UsdField(source="limit_pico")
    shadow = serializers.BooleanField(
        default=False, help_text="Count and tell what it would have refused, and refuse nothing."
    )
    raised_usd = UsdField(source="raised_pico", read_only=True, allow_null=True)
    raised_until = serializers.DateTimeField(read_only=True, allow_null=True)


class QuotaRaiseSerializer(serializers.Serializer[Any]):
    limit_usd = UsdField(source="limit_pico")
    until = serializers.DateTimeField()
    reason = serializers.CharField(max_length=400, default="", allow_blank=True)


class RateLimitSerializer(ScopeSerializer):
    rpm = serializers.IntegerField(min_value=0, max_value=COUNT_MAX, allow_null=True, default=None)
    tpm = serializers.IntegerField(min_value=0, max_value=COUNT_MAX, allow_null=True, default=None)
    concurrency = serializers.IntegerField(
        min_value=0, max_value=COUNT_MAX, allow_null=True, default=None
    )


class PolicySerializer(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(choices=PolicyKind.choices(), default=PolicyKind.CHEAPEST.value)
    pinned_skus = serializers.ListField(
        child=serializers.CharField(max_length=200), default=list, max_length=20
    )
    providers_allowed = serializers.ListField(
        child=serializers.CharField(max_length=80), default=list, max_length=100
    )
    max_input_pico = serializers.IntegerField(
        min_value=0, allow_null=True, default=None, help_text="Micro-dollars per million tokens."
    )
    max_output_pico = serializers.IntegerField(
        min_value=0, allow_null=True, default=None, help_text="Micro-dollars per million tokens."
    )
    allow_fallbacks = serializers.BooleanField(default=True)


class GapSerializer(serializers.Serializer[Any]):
    p95_ms = serializers.FloatField(min_value=0, max_value=MILLISECONDS_MAX)
    n = serializers.IntegerField(min_value=1, max_value=COUNT_MAX)


class GapsSerializer(serializers.Serializer[Any]):
    """Between tokens of one stream: while it is alone, and while every seat is taken."""

    alone = GapSerializer(required=False)
    full = GapSerializer(required=False)


class CalibratedWorkSerializer(serializers.Serializer[Any]):
    steps = serializers.IntegerField(min_value=1, max_value=COUNT_MAX)
    output_tokens = serializers.IntegerField(min_value=1, max_value=COUNT_MAX)
    busy_seconds = serializers.FloatField(min_value=1e-9, max_value=SECONDS_MAX)
    draft_seconds = serializers.FloatField(min_value=0, max_value=SECONDS_MAX)
    dispatch_seconds = serializers.FloatField(min_value=0, max_value=SECONDS_MAX)


class TechniqueCostsSerializer(serializers.Serializer[Any]):
    """Bytes in memory, and what the calibration took; what an engine does not know is left out."""

    weight_bytes = serializers.IntegerField(required=False, min_value=0, max_value=BYTES_MAX)
    full_weight_bytes = serializers.IntegerField(required=False, min_value=0, max_value=BYTES_MAX)
    draft_bytes = serializers.IntegerField(required=False, min_value=0, max_value=BYTES_MAX)
    expert_bytes = serializers.IntegerField(required=False, min_value=0, max_value=BYTES_MAX)
    active_expert_bytes = serializers.IntegerField(required=False, min_value=0, max_value=BYTES_MAX)
    calibrated = CalibratedWorkSerializer(required=False)
    gaps = GapsSerializer(required=False)


class WorkerRegistrationSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=80)
    base_url = serializers.CharField(max_length=300)
    bearer = serializers.CharField(max_length=500, min_length=8)
    model = serializers.CharField(max_length=80)
    context_length = serializers.IntegerField(min_value=16, max_value=10_000_000)
    max_output_tokens = serializers.IntegerField(min_value=1, max_value=10_000_000)
    techniques = serializers.ListField(child=serializers.CharField(max_length=60), max_length=30)
    usd_per_hour = serializers.DecimalField(max_digits=12, decimal_places=6)
    usd_per_hour_source = serializers.CharField(max_length=16)
    calibration = serializers.DictField()
    engine = serializers.DictField(default=dict)
    features = serializers.ListField(
        child=serializers.CharField(max_length=40), max_length=20, default=list
    )
    costs = TechniqueCostsSerializer(default=dict)


class HeartbeatSerializer(serializers.Serializer[Any]):
    worker_id = serializers.IntegerField(min_value=1)
    running = serializers.IntegerField(min_value=0, max_value=COUNT_MAX)
    waiting = serializers.IntegerField(min_value=0, max_value=COUNT_MAX)
    kv_cache_usage = serializers.FloatField(min_value=0, max_value=1)
    totals = serializers.DictField(child=serializers.FloatField(min_value=0, max_value=1e18))
    gaps = GapsSerializer(default=dict)


class RegisteredSerializer(serializers.Serializer[Any]):
    worker_id = serializers.IntegerField()
    heartbeat_seconds = serializers.IntegerField()
    sku = serializers.CharField()
