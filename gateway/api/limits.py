"""Spend caps, rate limits and routing policies of a tenant, its teams and keys."""

from datetime import datetime
from typing import TypedDict

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from billing.limits import quotas
from billing.models import Quota, RateLimit, ScopeKind
from gateway.api.base import Access, TenantView
from gateway.api.shapes.serializers import (
    PolicySerializer,
    QuotaRaiseSerializer,
    QuotaSerializer,
    RateLimitSerializer,
)
from gateway.models import Team
from gateway.tenants import policies
from gateway.tenants.roles import Action

NAMED_SCOPES = (ScopeKind.MODEL, ScopeKind.PROVIDER)


def scope_id(access: Access, kind: str, scope: str) -> str:
    """The id behind a scope's name, which must belong to this tenant."""
    if kind in (ScopeKind.TENANT, ScopeKind.SESSION) and scope == access.tenant.slug:
        return str(access.tenant.pk)
    if kind == ScopeKind.TEAM:
        team = access.team(scope)
        assert team is not None
        return str(team.pk)
    if kind == ScopeKind.KEY and scope.isdecimal():
        return str(access.find_key(int(scope)).pk)
    if kind in NAMED_SCOPES:
        return scope
    raise NotFound(f"no {kind} {scope} in this tenant")


def scope_names(access: Access) -> dict[tuple[str, str], str]:
    tenant = str(access.tenant.pk)
    names = {(str(kind), tenant): access.tenant.slug for kind in ("tenant", "session")}
    teams = Team.objects.filter(tenant=access.tenant).values_list("pk", "slug")
    return names | {(str(ScopeKind.TEAM), str(pk)): slug for pk, slug in teams}


class ScopeFacts(TypedDict):
    scope_kind: str
    scope: str


class AskedQuota(ScopeFacts):
    window: str
    limit_pico: int
    shadow: bool


class AskedRates(ScopeFacts):
    rpm: int | None
    tpm: int | None
    concurrency: int | None


class QuotaFacts(TypedDict):
    id: int
    window: str
    limit_pico: int
    shadow: bool
    raised_pico: int | None
    raised_until: datetime | None


def _named(row: Quota | RateLimit, names: dict[tuple[str, str], str]) -> ScopeFacts:
    scope = names.get((row.scope_kind, str(row.scope_id)), str(row.scope_id))
    return {"scope_kind": row.scope_kind, "scope": scope}


def _stated(quota: Quota) -> QuotaFacts:
    return {
        "id": quota.pk,
        "window": quota.window,
        "limit_pico": int(quota.limit_pico),
        "shadow": quota.shadow,
        "raised_pico": None if quota.raised_pico is None else int(quota.raised_pico),
        "raised_until": quota.raised_until,
    }


def _quota(access: Access, quota_id: int) -> Quota:
    quota = Quota.objects.filter(tenant=access.tenant, pk=quota_id).first()
    if quota is None:
        raise NotFound
    return quota


class QuotaListView(TenantView):
    writes = Action.SET_LIMITS

    @extend_schema(responses=QuotaSerializer(many=True))
    def get(self, request: Request, tenant: str) -> Response:
        names = scope_names(self.access)
        found = [
            {**_named(row, names), **_stated(row)}
            for row in quotas.limits_for(self.access.tenant).quotas
        ]
        return Response(QuotaSerializer(found, many=True).data)

    @extend_schema(request=QuotaSerializer, responses=QuotaSerializer)
    def put(self, request: Request, tenant: str) -> Response:
        """Set a spend cap of a scope and window; it holds from the next request on."""
        body = QuotaSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        stated: AskedQuota = body.validated_data
        kind = stated["scope_kind"]
        limited = scope_id(self.access, kind, stated["scope"])
        quota = quotas.set_quota(
            tenant=self.access.tenant,
            may_loosen=not self.access.is_bound_by(kind, limited),
            cap=quotas.Cap(
                scope_kind=kind,
                scope_id=limited,
                window=stated["window"],
                limit_pico=stated["limit_pico"],
                shadow=stated["shadow"],
            ),
            actor=self.access.caller,
            now=timezone.now(),
        )
        return Response(QuotaSerializer({**stated, **_stated(quota)}).data)


class QuotaView(TenantView):
    writes = Action.SET_LIMITS

    @extend_schema(responses={204: None})
    def delete(self, request: Request, tenant: str, quota_id: int) -> Response:
        """Lift a spend cap."""
        quota = _quota(self.access, quota_id)
        quotas.remove_quota(
            tenant=self.access.tenant,
            quota_id=quota_id,
            may_loosen=not self.access.is_bound_by(quota.scope_kind, quota.scope_id),
            actor=self.access.caller,
            now=timezone.now(),
        )
        return Response(status=status.HTTP_204_NO_CONTENT)


class QuotaRaiseView(TenantView):
    writes = Action.SET_LIMITS

    @extend_schema(request=QuotaRaiseSerializer, responses=QuotaSerializer)
    def post(self, request: Request, tenant: str, quota_id: int) -> Response:
        """Raise a spend cap until a date; then it is what it was."""
        found = _quota(self.access, quota_id)
        body = QuotaRaiseSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        quota = quotas.raise_quota(
            tenant=self.access.tenant,
            quota_id=quota_id,
            may_loosen=not self.access.is_bound_by(found.scope_kind, found.scope_id),
            actor=self.access.caller,
            now=timezone.now(),
            **body.validated_data,
        )
        answer = {**_named(quota, scope_names(self.access)), **_stated(quota)}
        return Response(QuotaSerializer(answer).data)


def _number(access: Access, kind: str, scope: str) -> int:
    if kind in (*NAMED_SCOPES, ScopeKind.SESSION):
        raise NotFound(f"no rates are counted for a {kind}")
    return int(scope_id(access, kind, scope))


class RateLimitListView(TenantView):
    writes = Action.SET_LIMITS

    @extend_schema(responses=RateLimitSerializer(many=True))
    def get(self, request: Request, tenant: str) -> Response:
        names = scope_names(self.access)
        found = [
            _named(row, names) | {"rpm": row.rpm, "tpm": row.tpm, "concurrency": row.concurrency}
            for row in quotas.limits_for(self.access.tenant).rates
        ]
        return Response(RateLimitSerializer(found, many=True).data)

    @extend_schema(request=RateLimitSerializer, responses=RateLimitSerializer)
    def put(self, request: Request, tenant: str) -> Response:
        """Set all three rates of a scope; null lifts one."""
        body = RateLimitSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        stated: AskedRates = body.validated_data
        kind = stated["scope_kind"]
        limited = _number(self.access, kind, stated["scope"])
        quotas.set_rate_limit(
            tenant=self.access.tenant,
            may_loosen=not self.access.is_bound_by(kind, str(limited)),
            scope_kind=kind,
            scope_id=limited,
            rpm=stated["rpm"],
            tpm=stated["tpm"],
            concurrency=stated["concurrency"],
            actor=self.access.caller,
            now=timezone.now(),
        )
        return Response(RateLimitSerializer(stated).data)


class PolicyView(TenantView):
    writes = Action.SET_ROUTING

    @extend_schema(responses=PolicySerializer)
    def get(self, request: Request, tenant: str) -> Response:
        """The tenant's routing policy, or its team's with `?team=`."""
        team = self.access.team(request.query_params.get("team"))
        return Response(PolicySerializer(policies.policy_of(self.access.tenant, team)).data)

    @extend_schema(request=PolicySerializer, responses=PolicySerializer)
    def put(self, request: Request, tenant: str) -> Response:
        body = PolicySerializer(data=request.data)
        body.is_valid(raise_exception=True)
        policy = policies.set_policy(
            tenant=self.access.tenant,
            team=self.access.team(request.query_params.get("team")),
            actor=self.access.caller,
            now=timezone.now(),
            **body.validated_data,
        )
        return Response(PolicySerializer(policy).data)
