"""Signing in and out, choosing the tenant and the theme."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST
from redis.exceptions import RedisError

from gateway.console import sign_in_limit
from gateway.console.access import SESSION_TENANT, memberships, tenant_page
from gateway.console.page_frame import THEME_COOKIE, THEME_COOKIE_AGE_S, THEMES, theme_of
from gateway.models import Member
from gateway.sign_on import provider, second_factor


class SignInView(LoginView):
    """Django's login with a limit on tries; the admin's own login leads here too."""

    template_name = "registration/login.html"
    tried: sign_in_limit.Try

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Who is signed in goes on; not to the admin, which sent them here: that is a circle."""
        if request.method in ("GET", "HEAD") and self._is_kept_out(request):
            return self._refuse(request, 403, "The admin console is not open to this account.")
        self.redirect_authenticated_user = not self._is_kept_out(request)
        return super().dispatch(request, *args, **kwargs)

    def _is_kept_out(self, request: HttpRequest) -> bool:
        user = request.user
        is_staff = isinstance(user, User) and user.is_active and user.is_staff
        wants_admin = self.get_success_url().startswith(reverse("admin:index"))
        return user.is_authenticated and not is_staff and wants_admin

    def get_default_redirect_url(self) -> str:
        """An operator without a team of his own has nothing to see among the teams' pages."""
        user = self.request.user
        if isinstance(user, User) and user.is_staff and not memberships(user):
            return reverse("admin:index")
        return reverse("overview")

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(
            theme=theme_of(self.request),
            nav="sign-in",
            sign_on_name=settings.OIDC_NAME if provider.is_configured() else "",
            **kwargs,
        )

    def post(self, request: HttpRequest, *args: str, **kwargs: Any) -> HttpResponse:
        address = request.META.get("REMOTE_ADDR", "")
        try:
            self.tried = sign_in_limit.begin(
                address=address, username=request.POST.get("username", "")
            )
            if not self.tried.may_go_on:
                return self._refuse(request, 429, sign_in_limit.TOO_MANY)
            return super().post(request, *args, **kwargs)
        except RedisError:
            return self._refuse(request, 503, sign_in_limit.AWAY)

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        sign_in_limit.succeeded(self.tried)
        response = super().form_valid(form)
        second_factor.note_password(self.request, form.get_user())
        return response

    def _refuse(self, request: HttpRequest, status: int, why: str) -> HttpResponse:
        form = self.get_form_class()(request)
        response = self.render_to_response(self.get_context_data(form=form, refused=why))
        response.status_code = status
        if status != 403:
            response["Retry-After"] = str(sign_in_limit.WINDOW_S if status == 429 else 5)
        return response


@require_POST
@tenant_page
def choose_tenant(request: HttpRequest, member: Member) -> HttpResponse:
    wanted = request.POST.get("tenant", "")
    mine = {str(m.tenant_id): m for m in memberships(member.user)}
    chosen = mine.get(wanted)
    if chosen is None:
        messages.error(request, "You are not a member of that tenant.")
    else:
        request.session[SESSION_TENANT] = chosen.tenant_id
    return redirect("overview")


@require_POST
def choose_theme(request: HttpRequest) -> HttpResponse:
    """Kept in a cookie, so that it holds before signing in and without a script."""
    target = request.POST.get("next", "/")
    if not url_has_allowed_host_and_scheme(target, allowed_hosts={request.get_host()}):
        target = "/"
    response = redirect(target)
    theme = request.POST.get("theme", "")
    if theme in THEMES:
        response.set_cookie(
            THEME_COOKIE, theme, max_age=THEME_COOKIE_AGE_S, httponly=True, samesite="Lax"
        )
    return response
