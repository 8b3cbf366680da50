"""Buying credit: the way to the payment page, automatic recharges, the processor's messages."""

import logging
from datetime import datetime

from django.conf import settings
from django.contrib import messages as notices
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from billing.errors import CreditRefused
from billing.payments import messages as payment_messages
from billing.payments import recharges, topups
from billing.payments.messages import Told
from gateway.console.access import tenant_page
from gateway.console.billing_forms import RechargeForm, TopUpForm, in_cents
from gateway.console.page_frame import render_page
from gateway.console.views.billing import billing_page
from gateway.models import Member
from gateway.payments import processor, stripe_messages
from gateway.tenants.roles import Action, require

logger = logging.getLogger(__name__)


@require_POST
@tenant_page
def buy(request: HttpRequest, member: Member) -> HttpResponse:
    """Answers with a link to the payment page: a form may not lead to another house."""
    require(member, Action.BUY_CREDIT)
    if not processor.is_configured():
        raise Http404
    form = TopUpForm(request.POST)
    if not form.is_valid():
        return billing_page(request, member, topup_form=form)
    try:
        topup = topups.start(
            tenant=member.tenant,
            net_cents=in_cents(form.cleaned_data["amount_usd"]),
            created_by=member.user.get_username(),
            now=timezone.now(),
        )
        page_url = processor.open_page(
            topup,
            return_url=f"{settings.PUBLIC_CONSOLE_URL}{reverse('billing')}",
            save_card=form.cleaned_data["save_card"],
        )
    except (CreditRefused, processor.ProcessorAway) as problem:
        form.add_error(None, str(problem))
        return billing_page(request, member, topup_form=form)
    context = {"topup": topup, "page_url": page_url}
    return render_page(request, "console/pay.html", context, nav="billing", member=member)


@require_POST
@tenant_page
def set_recharge(request: HttpRequest, member: Member) -> HttpResponse:
    require(member, Action.BUY_CREDIT)
    form = RechargeForm(request.POST)
    if not form.is_valid():
        return billing_page(request, member, recharge_form=form)
    terms = form.cleaned_data
    recharges.set_recharge(
        tenant=member.tenant,
        terms={
            "is_on": terms["is_on"],
            "below_cents": in_cents(terms["below_usd"]),
            "amount_cents": in_cents(terms["amount_usd"]),
            "monthly_max_cents": in_cents(terms["monthly_max_usd"]),
        },
        actor=request.user.get_username(),
        now=timezone.now(),
    )
    notices.success(request, "Saved.")
    return redirect("billing")


@csrf_exempt
@require_POST
def stripe_message(request: HttpRequest) -> HttpResponse:
    """A signed message of the processor; 2xx tells it not to send the message again."""
    if not processor.is_configured():
        raise Http404
    body, now = request.body, timezone.now()
    try:
        message = stripe_messages.read(body, request.headers.get("Stripe-Signature", ""))
        outcome = _carry_out(message, body, now)
    except stripe_messages.BadMessage as problem:
        return HttpResponse(f"{problem}\n", status=400, content_type="text/plain")
    except CreditRefused as problem:
        return HttpResponse(f"{problem}\n", status=409, content_type="text/plain")
    except processor.ProcessorAway as problem:
        return HttpResponse(f"{problem}\n", status=503, content_type="text/plain")
    logger.info("processor event %s, %s: %s", message.event_id, message.kind, outcome)
    return HttpResponse(f"{outcome}\n", content_type="text/plain")


def _carry_out(message: stripe_messages.Message, body: bytes, now: datetime) -> str:
    told = Told(message.event_id, message.kind, body, now)
    try:
        fact = stripe_messages.fact_of(message)
    except stripe_messages.UnreadableMessage as problem:
        payment_messages.doubt(told, why=str(problem))
        return "noted for a person"
    outcome = payment_messages.receive(told, fact, seller=settings.INVOICE_SELLER)
    if message.kind in stripe_messages.PAGE_PAID:
        page = stripe_messages.subject_of(message)
        processor.keep_card(key=page.key, payer=page.customer, payment=page.payment_intent)
    return outcome
