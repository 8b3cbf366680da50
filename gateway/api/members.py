"""Members of a tenant: who they are, their roles, and ending a membership."""

from typing import Any

from django.http import Http404
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from gateway import members
from gateway.api import pages
from gateway.api.base import Access, TenantView
from gateway.models import Member
from gateway.roles import Action


class MemberSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField(read_only=True)
    username = serializers.CharField(source="user.username", read_only=True)
    role = serializers.ChoiceField(choices=Member.Role.choices)
    team = serializers.SlugField(source="team.slug", allow_null=True, default=None, read_only=True)


class ChangedMemberSerializer(serializers.Serializer[Any]):
    role = serializers.ChoiceField(choices=Member.Role.choices)
    team = serializers.SlugField(max_length=64, allow_null=True, default=None)


class MemberListView(TenantView):
    @extend_schema(responses=MemberSerializer(many=True), parameters=[pages.PageSerializer])
    def get(self, request: Request, tenant: str) -> Response:
        found = Member.objects.filter(tenant=self.access.tenant).select_related("user", "team")
        page = pages.read(request, found)
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

    @extend_schema(responses={204: None})
    def delete(self, request: Request, tenant: str, member_id: int) -> Response:
        """End a membership; keys that the person made stay with the tenant."""
        _require_member(self.access, member_id)
        members.remove(
            tenant=self.access.tenant,
            by=self.access.caller,
            by_role=self.access.role,
            member_id=member_id,
            now=timezone.now(),
        )
        return Response(status=status.HTTP_204_NO_CONTENT)


def _require_member(access: Access, member_id: int) -> None:
    if not Member.objects.filter(tenant=access.tenant, pk=member_id).exists():
        raise Http404
