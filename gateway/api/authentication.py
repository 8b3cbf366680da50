"""Who calls the management API: a person's session, a management key, or a worker's key; and how
the reference says that one signs in with each."""

from dataclasses import dataclass

from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.request import Request

from gateway import kinds
from gateway.models import ApiKey
from gateway.tenants import keys
from providers.machines import workers
from providers.models import WorkerKey

BEARER = "bearer "


@dataclass(frozen=True, slots=True)
class KeyCaller:
    """A key in the place of a person. It is nobody's account and owns nothing."""

    name: str
    is_authenticated: bool = True
    is_active: bool = True
    is_anonymous: bool = False
    is_staff: bool = False
    is_superuser: bool = False
    pk: None = None


def bearer_of(request: Request) -> str | None:
    header = request.headers.get("Authorization", "")
    return header[len(BEARER) :].strip() if header.lower().startswith(BEARER) else None


class ManagementKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer tk-…` with the scope `management`."""

    scope = kinds.MANAGEMENT

    def authenticate(self, request: Request) -> tuple[KeyCaller, ApiKey] | None:
        plain = bearer_of(request)
        if plain is None:
            return None
        key = keys.find(plain)
        if key is None or not keys.is_live(key, timezone.now()):
            raise AuthenticationFailed("This API key does not exist, was revoked or has expired.")
        if self.scope not in key.scopes:
            raise PermissionDenied(f"This API key does not have the scope `{self.scope}`.")
        return KeyCaller(f"key {key.public_id}"), key

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class OperatorKeyAuthentication(ManagementKeyAuthentication):
    """`Authorization: Bearer tk-…` with the scope `operator`."""

    scope = kinds.OPERATOR


class WorkerKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer wk-…`."""

    def authenticate(self, request: Request) -> tuple[KeyCaller, WorkerKey]:
        key = workers.authenticate(bearer_of(request) or "")
        if key is None:
            raise AuthenticationFailed("This worker key does not exist or was revoked.")
        return KeyCaller(f"worker key {key.public_id}"), key

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class ManagementKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = ManagementKeyAuthentication
    name = "managementKey"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return _bearer("tk-…", "A tenant's API key with the scope `management`.")


class OperatorKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = OperatorKeyAuthentication
    name = "operatorKey"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return _bearer("tk-…", "A key of the house with the scope `operator`.")


class WorkerKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = WorkerKeyAuthentication
    name = "workerKey"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return _bearer("wk-…", "The key that a machine's worker was given.")


def _bearer(form: str, said: str) -> dict[str, str]:
    return {"type": "http", "scheme": "bearer", "bearerFormat": form, "description": said}
