"""One's own account: the password, and the way to the second factor."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import PasswordChangeForm
from django.contrib.auth.models import User
from django.contrib.auth.views import PasswordChangeView
from django.http import HttpRequest, HttpResponse
from django.urls import reverse_lazy
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_safe
from redis.exceptions import RedisError

from gateway.console import sign_in_limit
from gateway.console.page_frame import render_page
from gateway.sign_on import second_factor


@require_safe
@login_required
def account(request: HttpRequest) -> HttpResponse:
    assert isinstance(request.user, User)
    context = {
        "has_password": request.user.has_usable_password(),
        "has_second_factor": second_factor.has_one(request.user),
        "is_demanded": second_factor.is_demanded(request.user),
    }
    return render_page(request, "account/account.html", context, nav="account")


@method_decorator(login_required, name="dispatch")
class PasswordChange(PasswordChangeView):
    """Asks for the password that was, counted like a sign-in; other sessions end with it."""

    template_name = "account/password_change.html"
    success_url = reverse_lazy("account")

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        assert isinstance(request.user, User)
        form = self.get_form()
        try:
            tried = sign_in_limit.begin(
                address=request.META.get("REMOTE_ADDR", ""), username=request.user.get_username()
            )
            if not tried.may_go_on:
                form.add_error(None, sign_in_limit.TOO_MANY)
                return self._again(form, status=429)
            if "old_password" in form.errors:
                return self._again(form, status=422)
            sign_in_limit.succeeded(tried)
        except RedisError:
            form.add_error(None, sign_in_limit.AWAY)
            return self._again(form, status=503)
        if not form.is_valid():
            return self._again(form, status=422)
        messages.success(request, "The password is changed. Other sessions of yours have ended.")
        return self.form_valid(form)

    def _again(self, form: PasswordChangeForm, *, status: int) -> HttpResponse:
        return render_page(
            self.request, self.template_name, {"form": form}, nav="account", status=status
        )

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self._again(self.get_form(), status=200)
