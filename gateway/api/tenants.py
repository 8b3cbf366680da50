"""Tenants, their balance, teams and keys."""

from collections.abc import Sequence
from datetime import datetime
from typing import TypedDict

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from billing.credit import balances as credit
from gateway.api import pagination
from gateway.api.base import ApiView, TenantView, memberships
from gateway.api.idempotency import KEY_HEADER, idempotent
from gateway.api.problems import Refused
from gateway.api.shapes.serializers import (
    BalanceSerializer,
    IssuedKeySerializer,
    KeySerializer,
    NewKeySerializer,
    TeamChangeSerializer,
    TeamSerializer,
    TenantSerializer,
)
from gateway.models import ApiKey, Team
from gateway.tenants import keys, roles, teams
from gateway.tenants.roles import Action, Thing


class TenantListView(ApiView):
    @extend_schema(responses=TenantSerializer(many=True))
    def get(self, request: Request) -> Response:
        """The tenants that the caller belongs to."""
        if isinstance(request.auth, ApiKey):
            tenant = request.auth.tenant
            found = [{"slug": tenant.slug, "name": tenant.name, "role": "key"}]
        else:
            found = [
                {"slug": member.tenant.slug, "name": member.tenant.name, "role": member.role}
                for member in memberships(request).order_by("tenant__name")
            ]
        return Response(TenantSerializer(found, many=True).data)


class BalanceView(TenantView):
    @extend_schema(responses=BalanceSerializer)
    def get(self, request: Request, tenant: str) -> Response:
        """Credit, what is spent and held of it, and what is left, exact to 1e-12 dollar."""
        balance = credit.balance(self.access.tenant)
        figures = {
            name: getattr(balance, name)
            for name in ("credit_pico", "spent_pico", "held_pico", "left_pico")
        }
        return Response(BalanceSerializer(figures).data)


class TeamListView(TenantView):
    writes = Action.MANAGE_TEAMS

    @extend_schema(responses=TeamSerializer(many=True))
    def get(self, request: Request, tenant: str) -> Response:
        found = Team.objects.filter(tenant=self.access.tenant).order_by("slug")
        return Response(TeamSerializer(found, many=True).data)

    @extend_schema(request=TeamSerializer, responses={201: TeamSerializer}, parameters=[KEY_HEADER])
    @idempotent
    def post(self, request: Request, tenant: str) -> Response:
        body = TeamSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        slug = body.validated_data["slug"]
        if Team.objects.filter(tenant=self.access.tenant, slug=slug).exists():
            raise Refused(f"there is a team {slug} already", code="team_exists")
        team = teams.write(
            tenant=self.access.tenant,
            facts=body.validated_data,
            actor=self.access.caller,
            now=timezone.now(),
        )
        return Response(TeamSerializer(team).data, status=status.HTTP_201_CREATED)


class TeamView(TenantView):
    writes = Action.MANAGE_TEAMS

    @extend_schema(request=TeamChangeSerializer, responses=TeamSerializer, parameters=[KEY_HEADER])
    @idempotent
    def patch(self, request: Request, tenant: str, team: str) -> Response:
        """Rename a team, or charge it to another cost centre, past months included."""
        found = self.access.team(team)
        body = TeamChangeSerializer(found, data=request.data, partial=True)
        body.is_valid(raise_exception=True)
        changed = teams.write(
            tenant=self.access.tenant,
            facts={**body.validated_data, "slug": team},
            actor=self.access.caller,
            now=timezone.now(),
        )
        return Response(TeamSerializer(changed).data)


class AskedKey(TypedDict):
    name: str
    team: str | None
    scopes: Sequence[str]
    models_allowed: Sequence[str]
    expires_at: datetime | None


class KeyListView(TenantView):
    writes = Action.MAKE_KEYS

    @extend_schema(responses=KeySerializer(many=True), parameters=[pagination.PageSerializer])
    def get(self, request: Request, tenant: str) -> Response:
        found = ApiKey.objects.filter(tenant=self.access.tenant).select_related("team")
        page = pagination.read(request, found)
        return page.answer(KeySerializer(page.rows, many=True).data)

    @extend_schema(
        request=NewKeySerializer, responses={201: IssuedKeySerializer}, parameters=[KEY_HEADER]
    )
    @idempotent
    def post(self, request: Request, tenant: str) -> Response:
        """Make a key. Its `secret` is in this answer and nowhere else. A key that makes one hands
        out no more than it has: its own caps and rates hold for both together."""
        body = NewKeySerializer(data=request.data)
        body.is_valid(raise_exception=True)
        stated: AskedKey = body.validated_data
        team = self.access.team(stated["team"]) or self.access.own_team()
        manages = keys.is_managing(stated["scopes"])
        roles.require(self.access, Action.MAKE_KEYS, Thing(team.pk if team else None, manages))
        issued = keys.issue(
            tenant=self.access.tenant,
            team=team,
            created_by=self.access.key or self.access.caller,
            now=timezone.now(),
            name=stated["name"],
            scopes=stated["scopes"],
            models_allowed=stated["models_allowed"],
            expires_at=stated["expires_at"],
        )
        answer = KeySerializer(issued.key).data | {"secret": issued.plain}
        return Response(answer, status=status.HTTP_201_CREATED)


class KeyView(TenantView):
    writes = Action.REVOKE_KEYS

    @extend_schema(responses=KeySerializer)
    def get(self, request: Request, tenant: str, key_id: int) -> Response:
        return Response(KeySerializer(self.access.find_key(key_id)).data)

    @extend_schema(responses=KeySerializer)
    def delete(self, request: Request, tenant: str, key_id: int) -> Response:
        """Revoke a key: its next call fails, in every process. It stays listed."""
        key = self.access.find_key(key_id)
        roles.require(self.access, Action.REVOKE_KEYS, roles.key_thing(key))
        keys.revoke(key=key, actor=self.access.caller, now=timezone.now())
        return Response(KeySerializer(key).data)
