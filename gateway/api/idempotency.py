"""`Idempotency-Key` on writes that make something: the same call again gets the same answer.

The answer is stored in the transaction of the change, so either both are there or neither. A second
call that comes while the first is under way waits for it. Refusals are not stored: nothing came of
them.
"""

import hashlib
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import wraps
from typing import Any, Final

from django.db import transaction
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework.exceptions import ValidationError
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from gateway.api.base import OperatorView, TenantView
from gateway.api.problems import Refused
from gateway.models import IdempotentCall
from providers.market import credentials

HEADER: Final = "Idempotency-Key"
KEY_LENGTH_MAX: Final = 128
KEPT_FOR: Final = timedelta(hours=24)
KEY_HEADER: Final = OpenApiParameter(
    HEADER,
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="The same key and body within 24 hours get the first call's answer again.",
)
Handler = Callable[..., Response]
View = TenantView | OperatorView


def idempotent(handler: Handler) -> Handler:
    """For a method of a `TenantView` or `OperatorView`; without the header it changes nothing."""

    @wraps(handler)
    def once(view: View, request: Request, *args: Any, **kwargs: Any) -> Response:
        key = request.headers.get(HEADER)
        if key is None:
            return handler(view, request, *args, **kwargs)
        if not 0 < len(key) <= KEY_LENGTH_MAX or not key.isascii() or not key.isprintable():
            raise ValidationError({HEADER: [f"1 to {KEY_LENGTH_MAX} printable ASCII characters."]})
        return _once(view, request, key, lambda: handler(view, request, *args, **kwargs))

    return once


def _once(view: View, request: Request, key: str, handle: Callable[[], Response]) -> Response:
    now = timezone.now()
    said = b"\0".join([(request.method or "").encode(), request.path.encode(), _body(request)])
    request_hash = hashlib.sha256(said).digest()
    with transaction.atomic():
        _forget_old(view, now)
        call, is_new = IdempotentCall.objects.get_or_create(
            tenant=view.access.tenant,
            caller=view.access.caller,
            key_hash=hashlib.sha256(key.encode()).digest(),
            defaults={"request_hash": request_hash, "created_at": now},
        )
        if not is_new:
            return _again(call, request_hash)
        response = handle()
        call.status = response.status_code
        call.body = credentials.encrypt(JSONRenderer().render(response.data).decode())
        call.save(update_fields=["status", "body"])
    return response


def _body(request: Request) -> bytes:
    return request._request.body


def _forget_old(view: View, now: datetime) -> None:
    IdempotentCall.objects.filter(tenant=view.access.tenant, created_at__lt=now - KEPT_FOR).delete()


def _again(call: IdempotentCall, request_hash: bytes) -> Response:
    if bytes(call.request_hash) != request_hash:
        raise Refused("This key was used for another call.", code="idempotency_key_reused")
    body = json.loads(credentials.decrypt(call.body))
    return Response(body, status=call.status, headers={"Idempotent-Replayed": "true"})
