"""Delivers word of budgets that fill up and of credit that runs low: by mail, and by webhooks that
are signed.

A webhook is a POST of JSON with `X-Tokenhouse-Signature: t=<unix>,v1=<hex>`, the HMAC-SHA256 of
"<t>.<body>" under the channel's own secret; its `id` stays the same when it is tried again. It goes
through the checked client: to public addresses by https, unless the operator allows private ones.
"""

import asyncio
import hashlib
import hmac
import logging
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import send_mail
from django.core.validators import validate_email

from billing.errors import LimitRefused
from billing.models import AlertChannel, AlertDelivery
from gateway import alert_texts
from gateway.dataplane import egress
from gateway.dataplane.egress import EgressRefused
from gateway.dataplane.stopwatch import SystemClock
from gateway.dataplane.upstream import Upstream
from providers.chat import UpstreamCall
from providers.errors import ProviderError

PER_RUN_MAX: Final = 20
TRIES_MAX: Final = 8
FIRST_PAUSE: Final = timedelta(seconds=15)
TIMEOUT_S: Final = 5.0

logger = logging.getLogger(__name__)


class NotDelivered(Exception):
    """It may be tried again; the text is for people."""


def check_target(kind: str, target: str) -> None:
    """LimitRefused where nothing could be delivered there, whatever the moment."""
    if kind == AlertChannel.Kind.MAIL:
        if not settings.EMAIL_HOST:
            raise LimitRefused("no mail server is configured (TOKENHOUSE_EMAIL_HOST)")
        try:
            validate_email(target)
        except ValidationError:
            raise LimitRefused("this is not a mail address") from None
        return
    try:
        egress.origin_of(target, approved=settings.WEBHOOKS_PRIVATE)
    except EgressRefused as refused:
        raise LimitRefused(f"this webhook may not be called: {refused}") from None


def secret_of(channel: AlertChannel) -> str:
    """What its receiver checks signatures with; the same whenever it is asked for."""
    named = f"webhook:{channel.tenant_id}:{channel.pk}".encode()
    return hmac.new(settings.SECRET_KEY.encode(), named, hashlib.sha256).hexdigest()


def signature(secret: str, body: bytes, *, at_s: int) -> str:
    signed = hmac.new(secret.encode(), b"%d.%b" % (at_s, body), hashlib.sha256).hexdigest()
    return f"t={at_s},v1={signed}"


def deliver_due(*, now: datetime) -> int:
    """Try what is due; returns how many were delivered. A failed one is tried later, eight times
    over some hours."""
    due = AlertDelivery.objects.filter(due_at__lte=now).select_related(
        "alert",
        "credit_alert__tenant",
        "refund",
        "adjustment__tenant",
        "adjustment__grant",
        "channel",
    )
    delivered = 0
    for delivery in due.order_by("due_at", "pk")[:PER_RUN_MAX]:
        delivery.tries += 1
        try:
            _deliver(delivery, now)
        except NotDelivered as problem:
            delivery.failure = str(problem)[:200]
            is_last = delivery.tries >= TRIES_MAX
            delivery.due_at = None if is_last else now + FIRST_PAUSE * 3 ** (delivery.tries - 1)
            logger.warning("%s was not delivered: %s", delivery, problem)
        else:
            delivery.delivered_at, delivery.due_at, delivery.failure = now, None, ""
            delivered += 1
        delivery.save(update_fields=["tries", "due_at", "delivered_at", "failure"])
    return delivered


def _deliver(delivery: AlertDelivery, now: datetime) -> None:
    if delivery.channel.kind == AlertChannel.Kind.MAIL:
        _mail(delivery)
    else:
        asyncio.run(_post(delivery, at_s=int(now.timestamp())))


def _mail(delivery: AlertDelivery) -> None:
    subject, text = alert_texts.mail_of(delivery, console_url=settings.PUBLIC_CONSOLE_URL)
    try:
        send_mail(
            subject=subject,
            message=text,
            from_email=settings.DEFAULT_FROM_EMAIL,
            recipient_list=[delivery.channel.target],
        )
    except OSError as problem:  # smtplib's own are
        raise NotDelivered(f"{type(problem).__name__}: {problem}") from problem


async def _post(delivery: AlertDelivery, *, at_s: int) -> None:
    channel, body = delivery.channel, alert_texts.webhook_of(delivery)
    signed = signature(secret_of(channel), body, at_s=at_s)
    headers = {"content-type": "application/json", "x-tokenhouse-signature": signed}
    upstream = Upstream(connect_timeout_s=TIMEOUT_S, clock=SystemClock())
    try:
        async with asyncio.timeout(TIMEOUT_S):
            call = UpstreamCall(url=channel.target, headers=headers, body=body)
            answer = await upstream.open(call, approved=settings.WEBHOOKS_PRIVATE)
            status = answer.status
            answer.close()
    except (ProviderError, TimeoutError) as problem:
        raise NotDelivered(str(problem) or "no answer in time") from problem
    finally:
        upstream.close()
    if not 200 <= status < 300:
        raise NotDelivered(f"it answered {status}")
