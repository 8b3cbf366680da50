"""What all views of the management API share: authentication, problems, and the gate to a tenant.

Every object of a tenant is reached through `Access`, and one of another tenant is answered like one
that does not exist.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.http import Http404
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import MethodNotAllowed, PermissionDenied
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.holding import key_makers
from billing.models import ScopeKind, Tenant
from gateway.api import problems
from gateway.api.authentication import ManagementKeyAuthentication, OperatorKeyAuthentication
from gateway.kinds import Role
from gateway.middleware import is_admitted
from gateway.models import ApiKey, Member, Team
from gateway.tenants import keys, roles
from gateway.tenants.roles import Action

READING = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Access:
    """A caller inside one tenant, as `gateway.tenants.roles` judges it. A management key acts as an
    admin, and hands out no more than it has itself."""

    tenant: Tenant
    caller: str
    role: str
    team_id: int | None = None
    key: ApiKey | None = None
    is_operator: bool = False

    def team(self, slug: str | None) -> Team | None:
        if slug is None:
            return None
        team = Team.objects.filter(tenant=self.tenant, slug=slug).first()
        if team is None:
            raise Http404
        return team

    def own_team(self) -> Team | None:
        """Whose keys are made where no team is named: that of a developer, or of a key."""
        if self.team_id is None or (self.key is None and roles.reaches_all_teams(self)):
            return None
        return Team.objects.get(pk=self.team_id)

    def is_bound_by(self, kind: str, scope_id: str) -> bool:
        """Whether a limit of this scope binds the key that calls: its own, its makers', its
        team's. It may tighten such a limit, and not loosen it."""
        if self.key is None:
            return False
        if kind == ScopeKind.TEAM:
            return scope_id == str(self.key.team_id)
        line = (self.key.pk, *key_makers.makers(self.tenant.pk, self.key.pk))
        return kind == ScopeKind.KEY and scope_id in map(str, line)

    def find_key(self, key_id: int) -> ApiKey:
        key = ApiKey.objects.select_related("team").filter(tenant=self.tenant, pk=key_id).first()
        if key is None:
            raise Http404
        return key


class ApiView(APIView):
    """A view of the management API."""

    # The key first: a refused caller is told 401 and how, not a bare 403.
    authentication_classes: Sequence[type[BaseAuthentication]] = (
        ManagementKeyAuthentication,
        SessionAuthentication,
    )
    permission_classes: Sequence[type[BasePermission]] = (IsAuthenticated,)

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        return problems.handle


class TenantView(ApiView):
    """A view below `/tenants/<slug>/`. What reading and writing take is named by the view; what a
    single thing takes is asked where it is found."""

    reads = Action.SEE
    writes: Action | None = None
    access: Access

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        self.access = self.find_access(request, kwargs["tenant"])
        action = self.reads if request.method in READING else self.writes
        if action is None:
            raise MethodNotAllowed(request.method or "")
        roles.require(self.access, action)

    def find_access(self, request: Request, slug: str) -> Access:
        return access_to(request, slug)


@dataclass(frozen=True, slots=True)
class OperatorAccess:
    """A caller who acts for the house: no tenant's."""

    caller: str
    tenant: None = None


class OperatorView(ApiView):
    """A view for the house's own people: an operator key, or the session of staff with the right
    to see or make payouts, both from where the admin console is open to them."""

    authentication_classes = (OperatorKeyAuthentication, SessionAuthentication)
    access: OperatorAccess

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if not is_admitted(request._request):
            raise PermissionDenied("The operators' API is not open to this address.")
        if isinstance(request.auth, ApiKey):
            self.access = OperatorAccess(f"key {request.auth.public_id}")
            return
        user, is_reading = request.user, request.method in READING
        right = "billing.view_payout" if is_reading else "billing.add_payout"
        if not isinstance(user, User) or not user.is_staff or not user.has_perm(right):
            raise PermissionDenied("This is for operators of the house.")
        self.access = OperatorAccess(user.get_username())


def operator_access(request: Request, slug: str) -> Access | None:
    """What somebody may do in any tenant who may change tenants in the admin console, from where
    that is open to them; None for everybody else."""
    user = request.user
    if not isinstance(user, User) or not user.is_staff or not is_admitted(request._request):
        return None
    tenant = Tenant.objects.filter(slug=slug).first()
    if tenant is None or not user.has_perm("billing.change_tenant"):
        return None
    return Access(
        tenant,
        user.get_username(),
        role=Role.ADMIN,
        is_operator=True,
    )


def access_to(request: Request, slug: str) -> Access:
    """The caller's access to this tenant; 404 for one that is not theirs."""
    if isinstance(request.auth, ApiKey):
        if request.auth.tenant.slug != slug:
            raise Http404
        key = request.auth
        return Access(
            key.tenant,
            keys.caller_of(key),
            role=Role.ADMIN,
            team_id=key.team_id,
            key=key,
        )
    member = memberships(request).filter(tenant__slug=slug).first()
    if member is None:
        raise Http404
    return Access(
        member.tenant,
        request.user.get_username(),
        role=member.role,
        team_id=member.team_id,
    )


def memberships(request: Request) -> Any:
    user = request.user
    return Member.objects.filter(user=user if isinstance(user, User) else None).select_related(
        "tenant"
    )
