"""Members of a tenant: who they are, their roles, and ending a membership."""

from typing import Any

from django.http import Http404
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from gateway.api import pagination
from gateway.api.base import Access, TenantView
from gateway.kinds import Role
from gateway.models import Member
from gateway.tenants import keys, members
from gateway.tenants.roles import Action


class MemberSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField(read_only=True)
    username = serializers.CharField(source="user.username", read_only=True)
    role = serializers.ChoiceField(choices=Role.choices())
    team = serializers.SlugField(source="team.slug", allow_null=True, default=None, read_only=True)


class ChangedMemberSerializer(serializers.Serializer[Any]):
    role = serializers.ChoiceField(choices=Role.choices())
    team = serializers.SlugField(max_length=64, allow_null=True, default=None)


class LeavingSerializer(serializers.Serializer[Any]):
    revoke_keys = serializers.BooleanField(default=False)


class MemberListView(TenantView):
    @extend_schema(responses=MemberSerializer(many=True), parameters=[pagination.PageSerializer])
    def get(self, request: Request, tenant: str) -> Response:
        found = Member.objects.filter(tenant=self.access.tenant).select_related("user", "team")
        page = pagination.read(request, found)
        return page.answer(MemberSerializer(page.rows, many=True).data)


class MemberView(TenantView):
    writes = Action.MANAGE_PEOPLE

    @extend_schema(request=ChangedMemberSerializer, responses=MemberSerializer)
    def put(self, request: Request, tenant: str, member_id: int) -> Response:
        """Give a member another role or team; the last owner stays one."""
        body = ChangedMemberSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        _require_member(self.access, member_id)
        member = members.change(
            tenant=self.access.tenant,
            by=self.access.caller,
            by_role=self.access.role,
            member_id=member_id,
            role=body.validated_data["role"],
            team=self.access.team(body.validated_data["team"]),
            now=timezone.now(),
        )
        return Response(MemberSerializer(member).data)

    @extend_schema(responses={204: None}, parameters=[LeavingSerializer])
    def delete(self, request: Request, tenant: str, member_id: int) -> Response:
        """End a membership. Keys that the person made, and keys that these made, stay with the
        tenant and go on; with `revoke_keys=true` they are revoked."""
        asked = LeavingSerializer(data=request.query_params.dict())
        asked.is_valid(raise_exception=True)
        leaving = _require_member(self.access, member_id)
        members.remove(
            tenant=self.access.tenant,
            by=self.access.caller,
            by_role=self.access.role,
            member_id=member_id,
            now=timezone.now(),
        )
        if asked.validated_data["revoke_keys"]:
            self._revoke(leaving.user.get_username())
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _revoke(self, who: str) -> None:
        now = timezone.now()
        for key in members.keys_left(self.access.tenant, of=who, now=now):
            keys.revoke(key=key, actor=self.access.caller, now=now)


def _require_member(access: Access, member_id: int) -> Member:
    found = Member.objects.filter(tenant=access.tenant, pk=member_id).select_related("user").first()
    if found is None:
        raise Http404
    return found
