"""API keys: list, make (the secret is shown once), revoke."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe
from redis.exceptions import RedisError

from gateway.console.access import access_key, tenant_page
from gateway.console.first_request import curl_line, example_model
from gateway.console.forms import KeyForm
from gateway.console.keys import listing
from gateway.console.page_frame import render_page
from gateway.models import Member
from gateway.tenants import keys, roles
from gateway.tenants.roles import Action, require


@require_safe
@tenant_page
def key_list(request: HttpRequest, member: Member) -> HttpResponse:
    return _list(request, member, _form(member))


@never_cache
@require_POST
@tenant_page
def create_key(request: HttpRequest, member: Member) -> HttpResponse:
    """Answers with the secret itself, not with a redirect: it is never stored, not even briefly."""
    require(member, Action.MAKE_KEYS)
    form = _form(member, request.POST)
    if not form.is_valid():
        return _list(request, member, form, status=422)
    now = timezone.now()
    try:
        issued = keys.issue(
            tenant=member.tenant,
            team=form.cleaned_data["team"],
            name=form.cleaned_data["name"],
            created_by=member.user.get_username(),
            now=now,
            scopes=form.cleaned_data["scopes"],
            models_allowed=form.models_named(),
            expires_at=form.expires_at(now),
        )
    except keys.KeyRefused as refused:
        form.add_error(None, str(refused))
        return _list(request, member, form, status=422)
    return _show_once(request, member, issued)


def _show_once(request: HttpRequest, member: Member, issued: keys.IssuedKey) -> HttpResponse:
    model = example_model(issued.key.models_allowed)
    context = {"issued": issued, "curl": curl_line(issued.plain, model), "model": model}
    return render_page(
        request, "console/key_created.html", context, nav="keys", member=member, status=201
    )


@require_POST
@tenant_page
def revoke_key(request: HttpRequest, member: Member, key_id: int) -> HttpResponse:
    require(member, Action.REVOKE_KEYS)
    key = access_key(member.tenant, key_id)
    require(member, Action.REVOKE_KEYS, roles.key_thing(key))
    try:
        keys.revoke(key=key, actor=request.user.get_username(), now=timezone.now())
    except RedisError:
        messages.error(request, f"{key.name} was not revoked: Redis does not answer. Try again.")
    else:
        messages.success(request, f"{key.name} is revoked. Calls with it fail from now on.")
    return redirect("keys")


def _list(
    request: HttpRequest, member: Member, form: KeyForm, *, status: int = 200
) -> HttpResponse:
    page = listing.read(member, listing.asked_in(request.GET), now=timezone.now())
    context = {"form": form, "page": page}
    return render_page(
        request, "console/keys.html", context, nav="keys", member=member, status=status
    )


def _form(member: Member, typed: QueryDict | None = None) -> KeyForm:
    return KeyForm(typed, member=member)
