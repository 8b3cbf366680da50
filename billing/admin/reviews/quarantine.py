"""The page on which an operator resolves quarantined events: a look, a figure, a reason.

Nothing is posted before the form was confirmed; what is posted is `billing.operations.quarantine`'s
affair.
"""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from redis.exceptions import RedisError
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldAdminTextInputWidget

from billing.admin.base_admin import own_page
from billing.errors import BillingError
from billing.models import UsageEvent
from billing.money import PICO_PER_NANO, pico_from_usd
from billing.operations import quarantine, recount
from billing.redis.connection import connection

# Each is a transfer of its own, and the person answers for every one of them.
EVENTS_MAX = 50


def _dollars(label: str, hint: str) -> forms.DecimalField:
    return forms.DecimalField(
        label=label,
        help_text=hint,
        min_value=0,
        decimal_places=12,
        max_digits=20,
        widget=UnfoldAdminDecimalFieldWidget,
    )


class ResolveForm(forms.Form):
    tenant_usd = _dollars("The tenant pays, $", "For each event; at most what was debited.")
    supplier_usd = _dollars("The supplier bills, $", "For each event; 0 where it bills nothing.")
    reason = forms.CharField(max_length=120, widget=UnfoldAdminTextInputWidget)


def resolve(
    site: "ModelAdmin[UsageEvent]", request: HttpRequest, chosen: "QuerySet[UsageEvent]"
) -> HttpResponse | None:
    """The page, or None once the form was confirmed and the events are posted."""
    events = list(
        chosen.filter(state=UsageEvent.State.QUARANTINED)
        .select_related("tenant")
        .order_by("pk")[: EVENTS_MAX + 1]
    )
    if not events or len(events) > EVENTS_MAX:
        site.message_user(
            request, f"Choose 1 to {EVENTS_MAX} quarantined events.", messages.WARNING
        )
        return None
    form = ResolveForm(request.POST if "_confirm" in request.POST else None)
    if form.is_valid() and _posted(site, request, events, form.cleaned_data):
        return None
    return own_page(
        site,
        request,
        "admin/resolve_quarantine.html",
        title="Resolve quarantined events",
        form=form,
        rows=[
            (event, event.charged_nano * PICO_PER_NANO, recount.suggestion(event))
            for event in events
        ],
    )


def _posted(
    site: "ModelAdmin[UsageEvent]",
    request: HttpRequest,
    events: list[UsageEvent],
    asked: Mapping[str, Any],
) -> bool:
    try:
        quarantine.resolve_all(
            connection(),
            event_ids=[event.pk for event in events],
            tenant_pico=pico_from_usd(asked["tenant_usd"]),
            supplier_pico=pico_from_usd(asked["supplier_usd"]),
            resolved_by=request.user.get_username(),
            reason=asked["reason"],
            now=timezone.now(),
        )
    except BillingError as refusal:
        site.message_user(request, f"Nothing was posted: {refusal}", messages.ERROR)
        return False
    except RedisError:
        site.message_user(
            request,
            "Posted, but Redis does not answer: its registers are off until a rebuild.",
            messages.ERROR,
        )
        return True
    site.message_user(request, f"{len(events)} events are resolved and posted.")
    return True
