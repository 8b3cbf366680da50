"""Walls of the console: a strict content security policy, an address list for the admin, no NUL.

And the release in every answer.

Pages of the teams run no inline script and no eval. The admin's own framework (Alpine.js) evaluates
expressions, so its pages, and only they, may; they are behind the address list.
"""

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Final

from django.conf import settings
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBadRequest,
    HttpResponseBase,
    HttpResponseForbidden,
)
from django.middleware.gzip import GZipMiddleware

from gateway.version import HEADER, VERSION

Respond = Callable[[HttpRequest], HttpResponse]

ADMIN_PREFIX: Final = "/admin/"
BASE_POLICY: Final = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'"
)
PAGE_POLICY: Final = f"{BASE_POLICY}; script-src 'self'; style-src 'self'"
ADMIN_POLICY: Final = (
    f"{BASE_POLICY}; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'"
)


class ContentSecurityPolicy:
    def __init__(self, get_response: Respond) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        is_admin = request.path.startswith(ADMIN_PREFIX)
        response.headers.setdefault(
            "Content-Security-Policy", ADMIN_POLICY if is_admin else PAGE_POLICY
        )
        return response


class Compression(GZipMiddleware):
    """Pages shrink to a tenth; a stream of events is passed on as it comes."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> Any:
        if response.streaming:
            return response
        return super().process_response(request, response)


class Version:
    """Every answer of the console names the release, as the data plane's do."""

    def __init__(self, get_response: Respond) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        response.headers[HEADER] = VERSION
        return response


def version_in_pages(request: HttpRequest) -> dict[str, str]:
    """For the foot of every page."""
    return {"tokenhouse_version": VERSION}


class NoNulInAddresses:
    """Refuses an address with a NUL: no name holds one, and PostgreSQL takes none."""

    def __init__(self, get_response: Respond) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if "\0" in request.path or "%00" in request.META.get("QUERY_STRING", ""):
            return HttpResponseBadRequest("An address holds no NUL.\n", content_type="text/plain")
        return self._get_response(request)


class AdminAddressList:
    """Refuses admin pages to addresses outside ADMIN_NETWORKS, whoever is logged in."""

    def __init__(self, get_response: Respond) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path.startswith(ADMIN_PREFIX) and not is_admitted(request):
            return HttpResponseForbidden("The admin console is not open to this address.\n")
        return self._get_response(request)


def is_admitted(request: HttpRequest) -> bool:
    """Whether the admin console is open to the address that this request comes from."""
    try:
        address = ip_address(request.META["REMOTE_ADDR"])
    except (KeyError, ValueError):
        return False
    return any(address in network for network in settings.ADMIN_NETWORKS)
