"""Spend caps, rate limits and routing policies of a tenant, its teams and keys."""

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from billing import quotas
from billing.models import Quota, RateLimit, ScopeKind
from gateway import policies
from gateway.api.base import Access, TenantView
from gateway.api.serializers import PolicySerializer, QuotaSerializer, RateLimitSerializer
from gateway.models import Team
from providers.snapshot_signal import bump


def scope_id(access: Access, kind: str, scope: str) -> int:
    """The number behind a scope's name, which must belong to this tenant."""
    if kind == ScopeKind.TENANT and scope == access.tenant.slug:
        return int(access.tenant.pk)
    if kind == ScopeKind.TEAM:
        team = access.team(scope)
        assert team is not None
        return int(team.pk)
    if kind == ScopeKind.KEY and scope.isdecimal():
        return int(access.key(int(scope)).pk)
    raise NotFound(f"no {kind} {scope} in this tenant")


def scope_names(access: Access) -> dict[tuple[str, int], str]:
    names = {(str(ScopeKind.TENANT), access.tenant.pk): access.tenant.slug}
    teams = Team.objects.filter(tenant=access.tenant).values_list("pk", "slug")
    return names | {(str(ScopeKind.TEAM), pk): slug for pk, slug in teams}


def _named(row: Quota | RateLimit, names: dict[tuple[str, int], str]) -> dict[str, Any]:
    scope = names.get((row.scope_kind, row.scope_id), str(row.scope_id))
    return {"scope_kind": row.scope_kind, "scope": scope}


class QuotaListView(TenantView):
    @extend_schema(responses=QuotaSerializer(many=True))
    def get(self, request: Request, tenant: str) -> Response:
        names = scope_names(self.access)
        found = [
            _named(row, names)
            | {"id": row.pk, "window": row.window, "limit_pico": int(row.limit_pico)}
            for row in quotas.limits_for(self.access.tenant).quotas
        ]
        return Response(QuotaSerializer(found, many=True).data)

    @extend_schema(request=QuotaSerializer, responses=QuotaSerializer)
    def put(self, request: Request, tenant: str) -> Response:
        """Set a spend cap of a scope and window; it holds from the next request on."""
        body = QuotaSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        stated: dict[str, Any] = body.validated_data
        quota = quotas.set_quota(
            tenant=self.access.tenant,
            scope_kind=stated["scope_kind"],
            scope_id=scope_id(self.access, stated["scope_kind"], stated["scope"]),
            window=stated["window"],
            limit_pico=stated["limit_pico"],
            now=timezone.now(),
        )
        bump()
        return Response(QuotaSerializer(stated | {"id": quota.pk}).data)


class QuotaView(TenantView):
    @extend_schema(responses={204: None})
    def delete(self, request: Request, tenant: str, quota_id: int) -> Response:
        """Lift a spend cap."""
        if not Quota.objects.filter(tenant=self.access.tenant, pk=quota_id).exists():
            raise NotFound
        quotas.remove_quota(tenant=self.access.tenant, quota_id=quota_id)
        bump()
        return Response(status=status.HTTP_204_NO_CONTENT)


class RateLimitListView(TenantView):
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
        stated: dict[str, Any] = body.validated_data
        quotas.set_rate_limit(
            tenant=self.access.tenant,
            scope_kind=stated["scope_kind"],
            scope_id=scope_id(self.access, stated["scope_kind"], stated["scope"]),
            rpm=stated["rpm"],
            tpm=stated["tpm"],
            concurrency=stated["concurrency"],
        )
        bump()
        return Response(RateLimitSerializer(stated).data)


class PolicyView(TenantView):
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
            **body.validated_data,
        )
        return Response(PolicySerializer(policy).data)
