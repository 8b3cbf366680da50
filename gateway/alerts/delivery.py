"""Delivers word of budgets that fill up and of credit that runs low: by mail, and by webhooks that
are signed.

A webhook is a POST of JSON with `X-Tokenhouse-Signature: t=<unix>,v1=<hex>`, the HMAC-SHA256 of
"<t>.<body>" under the channel's own secret, signed anew whenever it is sent; its `id` stays the
same when it is tried again. It goes through the checked client: to public addresses by https,
unless the operator allows private ones.
"""

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from time import monotonic
from typing import Final

from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import send_mail
from django.core.validators import validate_email

from billing import fault_isolation
from billing.errors import LimitRefused
from billing.limits import alert_queue
from billing.models import AlertChannel, AlertDelivery
from gateway.alerts import texts as alert_texts
from gateway.clocks.stopwatch import SystemClock
from providers.chat import UpstreamCall
from providers.errors import ProviderError
from providers.outbound import egress
from providers.outbound.egress import EgressRefused
from providers.outbound.upstream import Upstream

# One run: so many receivers at the same time, so much to each, and nothing begun after so long.
RECEIVERS_MAX: Final = 100
PER_RECEIVER_MAX: Final = 50
RUN_LASTS: Final = timedelta(seconds=20)
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
        egress.check_reachable(target, approved=settings.WEBHOOKS_PRIVATE)
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
    """Try what is due; returns how many were delivered. Every receiver is served by itself, all at
    the same time, in order; one that fails is left alone until its next try is due."""
    channels = alert_queue.claim_due(now=now, at_most=RECEIVERS_MAX)
    told = async_to_sync(_deliver_all)(channels, now) if channels else []
    delivered = 0
    for channel, result in zip(channels, told, strict=True):
        with fault_isolation.apart(str(channel)):
            if isinstance(result, BaseException):
                raise result
            delivered += result
    return delivered


async def _deliver_all(
    channels: Sequence[AlertChannel], now: datetime
) -> list[int | BaseException]:
    # Names that nobody resolves keep a thread for a while: no receiver waits for another's.
    threads = ThreadPoolExecutor(max_workers=len(channels))
    asyncio.get_running_loop().set_default_executor(threads)
    began = monotonic()

    def at() -> datetime:
        return now + timedelta(seconds=monotonic() - began)

    # The database is asked by the calling thread, one at a time.
    sending = (_deliver_to(channel, now, at) for channel in channels)
    return await asyncio.gather(*sending, return_exceptions=True)


async def _deliver_to(channel: AlertChannel, now: datetime, at: Callable[[], datetime]) -> int:
    told = 0
    try:
        while told < PER_RECEIVER_MAX and at() - now < RUN_LASTS:
            until = at() + alert_queue.CLAIM_LASTS
            delivery = await sync_to_async(alert_queue.take)(channel, now=now, until=until)
            if delivery is None:
                break
            try:
                await _deliver(delivery, at)
            except NotDelivered as problem:
                logger.warning("%s was not delivered: %s", delivery, problem)
                await sync_to_async(alert_queue.failed)(delivery, str(problem))
                break
            await sync_to_async(alert_queue.delivered)(delivery, now=now)
            told += 1
    finally:
        await sync_to_async(alert_queue.release)(channel)
    return told


async def _deliver(delivery: AlertDelivery, at: Callable[[], datetime]) -> None:
    if delivery.channel.kind == AlertChannel.Kind.MAIL:
        await asyncio.to_thread(_mail, delivery)
    else:
        await _post(delivery, at_s=int(at().timestamp()))


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
