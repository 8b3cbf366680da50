"""Single sign-on: out to the identity provider, and back with somebody it vouches for."""

from django.conf import settings
from django.contrib.auth import login
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from gateway.console.page_frame import render_page
from gateway.sign_on import identities, provider
from gateway.sign_on.identities import IdentityRefused
from gateway.sign_on.provider import SignOnFailed

NEXT = "sign_on_next"
BACKEND = "django.contrib.auth.backends.ModelBackend"


@never_cache
@require_safe
def begin(request: HttpRequest) -> HttpResponse:
    if not provider.is_configured():
        raise Http404
    wanted = request.GET.get("next", "")
    if url_has_allowed_host_and_scheme(wanted, allowed_hosts={request.get_host()}):
        request.session[NEXT] = wanted
    return_url = f"{settings.PUBLIC_CONSOLE_URL}{reverse('sign-on-back')}"
    try:
        return provider.begin(request, return_url=return_url)
    except SignOnFailed as problem:
        return _refused(request, str(problem), status=503)


@never_cache
@require_safe
def back(request: HttpRequest) -> HttpResponse:
    if not provider.is_configured():
        raise Http404
    try:
        claims = provider.claims_of(request)
        user = identities.sign_in(issuer=settings.OIDC_ISSUER, claims=claims, now=timezone.now())
    except (SignOnFailed, IdentityRefused) as problem:
        return _refused(request, str(problem), status=403)
    target = request.session.pop(NEXT, reverse("overview"))
    login(request, user, backend=BACKEND)
    return redirect(target)


def _refused(request: HttpRequest, why: str, *, status: int) -> HttpResponse:
    return render_page(request, "console/sign_on_failed.html", {"why": why}, nav="", status=status)
