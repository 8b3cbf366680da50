"""Errors of the management API as problem details (RFC 9457): one shape, always with a code."""

from typing import Any, NotRequired, TypedDict

import redis
from django.core.exceptions import PermissionDenied
from django.db import DataError, OperationalError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler

from billing.errors import BillingError, Cold, LockTimeout
from gateway.console import error_pages
from gateway.tenants.keys import KeyRefused
from gateway.tenants.members import MemberRefused
from gateway.tenants.policies import PolicyRefused
from providers.machines.addresses import AddressRefused
from providers.machines.engine_cost import CalibrationRefused
from providers.machines.workers import WorkerForbidden, WorkerRefused, WorkerUnknown

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_S = "2"
REFUSALS = (
    MemberRefused,
    PolicyRefused,
    AddressRefused,
    CalibrationRefused,
    WorkerRefused,
)
UNAVAILABLE = (Cold, LockTimeout, redis.RedisError, OperationalError)


class Unavailable(exceptions.APIException):
    """The database or Redis is away; nothing was changed."""

    status_code = 503
    default_code = "unavailable"
    default_detail = "A service behind the API is away. Nothing was changed; try again."


class Refused(exceptions.APIException):
    """Understood and well-formed, and still refused."""

    status_code = 422
    default_code = "refused"


def handle(error: Exception, context: dict[str, Any]) -> Response | None:
    """Turns what a view raised into a problem; None for what nobody expected."""
    known = _as_api_exception(error)
    response = exception_handler(known, context)
    if response is None:
        return None
    response.data = problem(known, response)
    response.content_type = CONTENT_TYPE
    if isinstance(known, Unavailable):
        response["Retry-After"] = RETRY_AFTER_S
    return response


def _as_api_exception(error: Exception) -> Exception:
    if isinstance(error, OperationalError):
        code = error_pages.code_of(error)
        said = None if code == error_pages.UNAVAILABLE else error_pages.SAID[code]
        return Unavailable(said, code=code)
    if isinstance(error, UNAVAILABLE):
        return Unavailable()
    if isinstance(error, KeyRefused):
        return Refused(str(error), code=error.code)
    if isinstance(error, REFUSALS):
        return Refused(str(error))
    if isinstance(error, DataError):
        return Refused("A value is out of range, or holds a NUL.", code="out_of_range")
    if isinstance(error, BillingError):
        return Refused(str(error), code=error.code)
    if isinstance(error, WorkerUnknown):
        return exceptions.NotFound(str(error))
    if isinstance(error, Http404):
        return exceptions.NotFound()
    if isinstance(error, PermissionDenied | WorkerForbidden):
        return exceptions.PermissionDenied(str(error) or None)
    return error


class Problem(TypedDict):
    """`errors`: by field, what is wrong with it."""

    type: str
    title: str
    status: int
    code: NotRequired[str]
    detail: NotRequired[str]
    errors: NotRequired[object]


def problem(error: Exception, response: Response) -> Problem:
    body: Problem = {
        "type": "about:blank",
        "title": response.status_text,
        "status": response.status_code,
    }
    if isinstance(error, exceptions.ValidationError):
        return {**body, "code": "invalid", "detail": "See errors.", "errors": error.detail}
    if isinstance(error, exceptions.APIException):
        codes = error.get_codes()
        code = codes if isinstance(codes, str) else error.default_code
        return {**body, "code": code, "detail": str(error.detail)}
    return body
