"""The first run: a key, a line to paste, and a page that waits for the request to arrive."""

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from gateway.console.access import tenant_page
from gateway.console.first_request import PLACEHOLDER, curl_line, example_model
from gateway.console.page_frame import render_page
from gateway.console.requests import request_list
from gateway.models import ApiKey, Member
from gateway.tenants import keys
from gateway.tenants.roles import Action, require

FIRST_KEY_NAME = "first key"


@require_safe
@tenant_page
def start(request: HttpRequest, member: Member) -> HttpResponse:
    return _page(request, member, plain=None)


@never_cache
@require_POST
@tenant_page
def start_with_key(request: HttpRequest, member: Member) -> HttpResponse:
    """Makes a key and shows it inside the line; like every secret it is shown this once."""
    require(member, Action.MAKE_KEYS)
    issued = keys.issue(
        tenant=member.tenant,
        team=member.team,
        name=FIRST_KEY_NAME,
        created_by=member.user.get_username(),
        now=timezone.now(),
    )
    return _page(request, member, plain=issued.plain)


def _page(request: HttpRequest, member: Member, *, plain: str | None) -> HttpResponse:
    model = example_model()
    arrived = request_list.read(member.tenant_id, request_list.asked_in({}), limit=1).rows
    context = {
        "plain": plain,
        "has_key": ApiKey.objects.filter(tenant=member.tenant, revoked_at=None).exists(),
        "model": model,
        "curl": curl_line(plain or PLACEHOLDER, model),
        "arrived": arrived[0] if arrived else None,
    }
    return render_page(request, "console/start.html", context, nav="overview", member=member)


@require_safe
@tenant_page
def arrived(request: HttpRequest, member: Member) -> HttpResponse:
    """The waiting part of the page alone: a refresh must not ask for the secret again."""
    rows = request_list.read(member.tenant_id, request_list.asked_in({}), limit=1).rows
    context = {"arrived": rows[0] if rows else None}
    return render_page(request, "parts/arrived.html", context, nav="overview", member=member)
