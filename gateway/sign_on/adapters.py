"""What allauth asks of us: its secrets are kept like ours, and nobody signs up through it."""

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.internal.flows.reauthentication import get_reauthentication_flows
from allauth.core import context
from allauth.mfa.adapter import DefaultMFAAdapter
from django.http import HttpRequest

from providers.market import credentials


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def is_reauthentication_required(self, *, app: str) -> bool:
        """Not of people who have nothing to give again: those of single sign-on before they set a
        second factor up."""
        if not get_reauthentication_flows(context.request.user):
            return False
        return bool(super().is_reauthentication_required(app=app))


class SecondFactorAdapter(DefaultMFAAdapter):  # type: ignore[misc]
    def encrypt(self, text: str) -> str:
        return credentials.encrypt(text).decode("ascii")

    def decrypt(self, encrypted_text: str) -> str:
        return credentials.decrypt(encrypted_text.encode("ascii"))
