"""Setting a second factor up and taking it away: allauth's views, noted in the audit log.

Who set one up has given it: the session in which that happened goes on.
"""

from typing import Any, Final

from allauth.mfa.totp.views import ActivateTOTPView, DeactivateTOTPView
from allauth.mfa.webauthn.views import AddWebAuthnView, RemoveWebAuthnView
from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from billing import audit
from gateway.sign_on import second_factor

APP: Final = "authenticator app"
PASSKEY: Final = "passkey"


class AddApp(ActivateTOTPView):  # type: ignore[misc]
    def form_valid(self, form: Any) -> HttpResponse:
        with transaction.atomic():
            response: HttpResponse = super().form_valid(form)
            _note(self.request, "add", APP)
        second_factor.note_proof(self.request, _person(self.request))
        return response


class AddPasskey(AddWebAuthnView):  # type: ignore[misc]
    def form_valid(self, form: Any) -> HttpResponse:
        with transaction.atomic():
            response: HttpResponse = super().form_valid(form)
            _note(self.request, "add", PASSKEY)
        second_factor.note_proof(self.request, _person(self.request))
        return response


class RemoveApp(DeactivateTOTPView):  # type: ignore[misc]
    def form_valid(self, form: Any) -> HttpResponse:
        with transaction.atomic():
            _note(self.request, "remove", APP)
            response: HttpResponse = super().form_valid(form)
        return response


class RemovePasskey(RemoveWebAuthnView):  # type: ignore[misc]
    def form_valid(self, form: Any) -> HttpResponse:
        with transaction.atomic():
            _note(self.request, "remove", PASSKEY)
            response: HttpResponse = super().form_valid(form)
        return response


def _person(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def _note(request: HttpRequest, verb: str, what: str) -> None:
    name = _person(request).get_username()
    audit.record(
        actor=name,
        action=f"second_factor.{verb}",
        subject=f"{what} of {name}",
        now=timezone.now(),
    )
