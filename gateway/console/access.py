"""Who may see what: every page of a tenant takes its tenant, and every object, from here.

An object of another tenant is answered like one that does not exist. The chosen tenant is kept
in the session and checked against the memberships at every request.
"""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, Final, ParamSpec

from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from billing.models import Tenant
from gateway.models import ApiKey, Member, Seller
from gateway.tenants import roles

SESSION_TENANT: Final = "tenant"

P = ParamSpec("P")


def memberships(user: User) -> list[Member]:
    return list(
        Member.objects.filter(user=user).select_related("tenant", "team").order_by("tenant__name")
    )


def choose_member(request: HttpRequest) -> Member | None:
    """The membership the session asks for, else the first one; None without any."""
    if not isinstance(request.user, User):
        return None
    found = memberships(request.user)
    wanted = request.session.get(SESSION_TENANT)
    return next((m for m in found if m.tenant_id == wanted), found[0] if found else None)


def tenant_page(
    view: Callable[Concatenate[HttpRequest, Member, P], HttpResponse],
) -> Callable[..., HttpResponse]:
    """Hands the view the signed-in member; people without a tenant get a page that says so."""

    @login_required
    @wraps(view)
    def guarded(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        member = choose_member(request)
        if member is None:
            return render(request, "console/no_tenant.html", status=403)
        return view(request, member, *args, **kwargs)

    return guarded


def sellers_of(member: Member) -> "QuerySet[Seller]":
    """What a member may see sold: its team's, and for managers every team's of the tenant."""
    found = Seller.objects.filter(team__tenant=member.tenant).select_related("team", "provider")
    return found if roles.reaches_all_teams(member) else found.filter(team=member.team_id)


def access_key(tenant: Tenant, key_id: int) -> ApiKey:
    key = ApiKey.objects.filter(tenant=tenant, pk=key_id).first()
    if key is None:
        raise Http404("no such key")
    return key
