"""A tenant's terms, and who is told of its money."""

from datetime import datetime
from typing import Any, TypedDict

from django.http import Http404
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from billing.kinds import HoldMode
from billing.limits import alert_channels, credit_alerts
from billing.models import AlertChannel, PlanAssignment, Tenant
from billing.prices import plans
from gateway.alerts import delivery as alert_delivery
from gateway.api.base import Access, TenantView, access_to, operator_access
from gateway.api.idempotency import KEY_HEADER, idempotent
from gateway.api.shapes.money_fields import UsdField
from gateway.tenants import roles, sign_in_rules
from gateway.tenants import terms as tenant_terms
from gateway.tenants.roles import Action


class ComingPlanSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField(source="pk")
    plan = serializers.CharField(source="plan.slug", allow_null=True, default=None)
    begins_at = serializers.DateTimeField(source="assigned_at")


class SettingsSerializer(serializers.Serializer[Any]):
    time_zone = serializers.CharField(
        max_length=64, required=False, help_text="Budgets per day, week and month follow it."
    )
    hold_mode = serializers.ChoiceField(choices=HoldMode.choices(), required=False)
    overdraft_usd = UsdField(
        source="overdraft_pico",
        required=False,
        help_text="Expected holds: by how much spending may pass each limit. Operators raise it.",
    )
    plan = serializers.SlugField(
        max_length=64,
        required=False,
        allow_null=True,
        help_text="Whose prices are paid; null for list prices. Operators change it.",
    )
    plan_from = serializers.CharField(
        max_length=40,
        required=False,
        write_only=True,
        help_text="When `plan` begins: a moment with its offset, or a day of the tenant's calendar "
        "(2026-12-01). Left out: now.",
    )
    withdraw_plan = serializers.IntegerField(
        required=False, write_only=True, help_text="The id of a plan to come that is taken back."
    )
    plans_to_come = ComingPlanSerializer(many=True, read_only=True)
    low_credit_usd = UsdField(
        source="below_pico",
        required=False,
        allow_null=True,
        help_text="When less is left, the alert channels are told, once; null tells nobody.",
    )
    second_factor_demanded = serializers.BooleanField(
        required=False, help_text="Members set up a second factor before they get anywhere."
    )
    credit_limit_usd = UsdField(source="credit_limit_pico", read_only=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "plan_from" in attrs and "plan" not in attrs:
            raise serializers.ValidationError({"plan_from": "Say which plan begins then."})
        return attrs


class SettingsFacts(TypedDict):
    time_zone: str
    hold_mode: str
    overdraft_pico: int
    plan: str | None
    plans_to_come: list[PlanAssignment]
    below_pico: int | None
    second_factor_demanded: bool
    credit_limit_pico: int


class ChannelSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField(read_only=True, source="pk")
    kind = serializers.ChoiceField(choices=AlertChannel.Kind.choices)
    target = serializers.CharField(
        max_length=alert_channels.TARGET_LENGTH_MAX, help_text="A mail address, or an https URL."
    )
    secret = serializers.SerializerMethodField(
        help_text="What a webhook's signatures are checked with; null for mail, and for readers."
    )

    def get_secret(self, channel: AlertChannel) -> str | None:
        if channel.kind != AlertChannel.Kind.WEBHOOK or not self.context["may_set"]:
            return None
        return alert_delivery.secret_of(channel)


class SettingsView(TenantView):
    writes = Action.SET_TERMS

    def find_access(self, request: Request, slug: str) -> Access:
        return operator_access(request, slug) or access_to(request, slug)

    @extend_schema(responses=SettingsSerializer)
    def get(self, request: Request, tenant: str) -> Response:
        """The tenant's terms."""
        return Response(_stated(self.access.tenant, timezone.now()))

    @extend_schema(request=SettingsSerializer, responses=SettingsSerializer)
    def patch(self, request: Request, tenant: str) -> Response:
        """Change what is named, all of it or nothing. `plan`, `withdraw_plan` and a higher
        `overdraft_usd` take the session of an operator who may change tenants, at an address that
        the admin console is open to."""
        body = SettingsSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        now = timezone.now()
        changed = tenant_terms.change(
            tenant=self.access.tenant,
            wanted=body.validated_data,
            actor=self.access.caller,
            is_operator=self.access.is_operator,
            now=now,
        )
        return Response(_stated(changed, now))


def _stated(tenant: Tenant, now: datetime) -> Any:
    plan = plans.of(tenant, now)
    facts: SettingsFacts = {
        "time_zone": tenant.time_zone,
        "hold_mode": tenant.hold_mode,
        "overdraft_pico": int(tenant.overdraft_pico),
        "plan": None if plan is None else plan.slug,
        "plans_to_come": plans.coming([tenant.pk], now),
        "below_pico": credit_alerts.threshold_pico(tenant),
        "second_factor_demanded": sign_in_rules.demands_second_factor(tenant),
        "credit_limit_pico": int(tenant.credit_limit_pico),
    }
    return SettingsSerializer(facts).data


class ChannelListView(TenantView):
    writes = Action.SET_ALERTS

    @extend_schema(responses=ChannelSerializer(many=True))
    def get(self, request: Request, tenant: str) -> Response:
        """Who is told of the tenant's budgets and credit."""
        found = AlertChannel.objects.filter(tenant=self.access.tenant).order_by("pk")
        return Response(ChannelSerializer(found, many=True, context=self._context()).data)

    @extend_schema(
        request=ChannelSerializer, responses={201: ChannelSerializer}, parameters=[KEY_HEADER]
    )
    @idempotent
    def post(self, request: Request, tenant: str) -> Response:
        """Tell somebody from now on; the same address again is the one that there is."""
        body = ChannelSerializer(data=request.data, context=self._context())
        body.is_valid(raise_exception=True)
        alert_delivery.check_target(**body.validated_data)
        channel = alert_channels.add(
            tenant=self.access.tenant,
            actor=self.access.caller,
            now=timezone.now(),
            **body.validated_data,
        )
        answer = ChannelSerializer(channel, context=self._context()).data
        return Response(answer, status=status.HTTP_201_CREATED)

    def _context(self) -> dict[str, bool]:
        return {"may_set": roles.may(self.access, Action.SET_ALERTS)}


class ChannelView(TenantView):
    writes = Action.SET_ALERTS

    @extend_schema(responses={204: None})
    def delete(self, request: Request, tenant: str, channel_id: int) -> Response:
        """Tell nobody there any more."""
        if not AlertChannel.objects.filter(tenant=self.access.tenant, pk=channel_id).exists():
            raise Http404
        alert_channels.remove(
            tenant=self.access.tenant,
            channel_id=channel_id,
            actor=self.access.caller,
            now=timezone.now(),
        )
        return Response(status=status.HTTP_204_NO_CONTENT)
