"""The routing policy of a tenant: choose it, and see what it would have cost last week."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from gateway.console import policy_page
from gateway.console.access import tenant_page
from gateway.console.forms import PolicyForm, pico_per_token_of
from gateway.console.page_frame import render_page
from gateway.models import Member
from gateway.tenants import policies
from gateway.tenants.roles import Action, require


@require_http_methods(["GET", "HEAD", "POST"])
@tenant_page
def routing(request: HttpRequest, member: Member) -> HttpResponse:
    if request.method == "POST":
        return _save(request, member)
    policy = policies.policy_of(member.tenant)
    return _page(request, member, PolicyForm(initial=policy_page.initial(policy)))


def _save(request: HttpRequest, member: Member) -> HttpResponse:
    require(member, Action.SET_ROUTING)
    form = PolicyForm(request.POST)
    if not form.is_valid():
        return _page(request, member, form, status=422)
    try:
        policies.set_policy(
            tenant=member.tenant,
            actor=request.user.get_username(),
            now=timezone.now(),
            kind=form.cleaned_data["kind"],
            pinned_skus=form.skus(),
            providers_allowed=form.sellers(),
            max_input_pico=pico_per_token_of(form.cleaned_data["max_input_usd"]),
            max_output_pico=pico_per_token_of(form.cleaned_data["max_output_usd"]),
            allow_fallbacks=form.cleaned_data["allow_fallbacks"],
        )
    except policies.PolicyRefused as refused:
        form.add_error(None, str(refused))
        return _page(request, member, form, status=422)
    messages.success(request, "Saved. The next request is routed by it.")
    return redirect("routing")


def _page(
    request: HttpRequest, member: Member, form: PolicyForm, *, status: int = 200
) -> HttpResponse:
    policy = policies.policy_of(member.tenant)
    context = {
        "form": form,
        "chosen": form["kind"].value() or policy.kind,
        "options": policy_page.options(member.tenant_id, policy, now=timezone.now()),
    }
    return render_page(
        request, "console/routing.html", context, nav="routing", member=member, status=status
    )
