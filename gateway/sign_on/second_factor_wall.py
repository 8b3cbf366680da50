"""The wall before everything that a session reaches while its second factor is missing.

Closed by default: a view that is not named here is behind it, the admin console and the management
API included. Keys carry no session and pass.
"""

from collections.abc import Callable
from typing import Any, Final

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import urlencode
from redis.exceptions import RedisError

from gateway.sign_on import second_factor
from gateway.sign_on.second_factor import Missing

Respond = Callable[[HttpRequest], HttpResponse]

STEP_UP: Final = "mfa_reauthenticate"
ENROL: Final = "mfa_index"
# What says nothing of anybody, or leads out of the session.
HARMLESS: Final = frozenset(
    {
        "login",
        "account_login",
        "logout",
        "admin:logout",
        "theme",
        "health",
        "sign-on",
        "sign-on-back",
        "stripe-message",
        "api-schema",
        "api-docs",
        "api-home-board",
        "api-board",
        "api-prices",
        "api-price-list",
        "worker-register",
        "worker-heartbeat",
    }
)
OPEN: Final = {
    # Nothing here sets a factor up: else a stolen session would add one of its own.
    Missing.PROOF: HARMLESS | {STEP_UP, "mfa_reauthenticate_webauthn"},
    Missing.ENROLMENT: HARMLESS
    | {
        ENROL,
        "mfa_activate_totp",
        "mfa_add_webauthn",
        "account_reauthenticate",
    },
}
DETAIL: Final = "This session needs a second factor: give it, or set one up, in the console."


class SecondFactorWall:
    def __init__(self, get_response: Respond) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self._get_response(request)

    def process_view(
        self, request: HttpRequest, view: Any, args: Any, kwargs: Any
    ) -> HttpResponse | None:
        user = request.user
        if not isinstance(user, User):
            return None
        lacks = second_factor.missing(request, user)
        match = request.resolver_match
        if lacks == Missing.NOTHING or (match is not None and match.view_name in OPEN[lacks]):
            return None
        if request.path.startswith("/api/"):
            return _problem()
        if request.path.startswith("/live/"):
            return HttpResponse(f"{DETAIL}\n", status=403, content_type="text/plain")
        target = reverse(STEP_UP if lacks == Missing.PROOF else ENROL)
        back = request.get_full_path() if request.method == "GET" else reverse("overview")
        return redirect(f"{target}?{urlencode({'next': back})}")

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Codes are counted and spent in Redis: without it none is taken."""
        match = request.resolver_match
        name = "" if match is None else match.view_name
        if not isinstance(error, RedisError) or not name.startswith(("mfa_", "account_")):
            return None
        said = "A second factor cannot be checked right now. Try again.\n"
        response = HttpResponse(said, status=503, content_type="text/plain")
        response["Retry-After"] = "5"
        return response


def _problem() -> JsonResponse:
    body = {
        "type": "about:blank",
        "title": "Forbidden",
        "status": 403,
        "code": "second_factor_required",
        "detail": DETAIL,
    }
    return JsonResponse(body, status=403, content_type="application/problem+json")
