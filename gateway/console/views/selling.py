"""Selling: what a team's offers earned, what it asks for them, and its statement."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from billing.books import earnings, payouts
from billing.errors import BillingError
from billing.money import usd
from billing.prices import list_prices as price_queries
from billing.rates import PPM_PER_PERCENT
from gateway import months
from gateway.console.access import sellers_of, tenant_page
from gateway.console.ask_form import AskForm
from gateway.console.page_frame import month_asked, render_page
from gateway.console.spreadsheet import csv_response
from gateway.models import Member, Seller
from gateway.tenants import roles, sellers
from gateway.tenants.roles import Action, require

LOOKED_BACK: Final = timedelta(days=30)
PAYOUTS_SHOWN: Final = 24
STATEMENT_HEAD: Final = (
    "day", "sku", "requests", "input_tokens", "output_tokens", "buyers_paid_usd",
    "your_credit_usd", "house_usd", "paid_out_usd", "payout_reference",
)  # fmt: skip


@require_safe
@tenant_page
def selling(request: HttpRequest, member: Member) -> HttpResponse:
    return _page(request, member, _seller(request, member))


@require_POST
@tenant_page
def ask(request: HttpRequest, member: Member) -> HttpResponse:
    require(member, Action.SELL)
    seller = _seller(request, member)
    require(member, Action.SELL, roles.seller_thing(seller))
    form = AskForm(request.POST, seller=seller)
    if not form.is_valid():
        return _page(request, member, seller, form=form)
    try:
        sellers.ask(
            seller=seller,
            offer_id=form.cleaned_data["offer"].pk,
            rates=form.rates(),
            margin_ppm=form.margin_ppm(),
            window=form.window(),
            actor=request.user.get_username(),
            now=timezone.now(),
        )
    except (BillingError, sellers.SellerRefused) as refused:
        form.add_error(None, f"Not saved: {refused}")
        return _page(request, member, seller, form=form)
    messages.success(request, "Saved. It holds from the next request on.")
    return redirect(f"{request.path.removesuffix('ask/')}?seller={seller.pk}")


@require_safe
@tenant_page
def statement_csv(request: HttpRequest, member: Member) -> HttpResponse:
    seller = _seller(request, member)
    month = month_asked(request)
    slug = seller.provider.slug
    sold = (
        (
            row.day.isoformat(), row.sku, row.requests, row.input_tokens, row.output_tokens,
            f"{usd(row.paid_pico):f}", f"{usd(row.credit_pico):f}", f"{usd(row.house_pico):f}",
            "", "",
        )
        for row in earnings.by_day(
            slug, since=month.begins_at, until=month.following.begins_at
        )
    )  # fmt: skip
    sent = (
        (
            payout.paid_on.isoformat(), "", "", "", "", "", "", "",
            f"{Decimal(payout.amount_cents).scaleb(-2):f}", payout.reference,
        )
        for payout in payouts.between(slug, since=month.first, until=month.following.first)
    )  # fmt: skip
    return csv_response(f"statement-{slug}-{month}.csv", head=STATEMENT_HEAD, rows=(*sold, *sent))


def _seller(request: HttpRequest, member: Member) -> Seller:
    """The one asked for, else the first; another tenant's is like one that does not exist."""
    wanted = request.GET.get("seller") or request.POST.get("seller") or ""
    found = list(sellers_of(member).order_by("pk"))
    if wanted:
        found = [seller for seller in found if str(seller.pk) == wanted]
    if not found:
        raise Http404("nothing is sold here")
    return found[0]


def _page(
    request: HttpRequest, member: Member, seller: Seller, *, form: AskForm | None = None
) -> HttpResponse:
    now = timezone.now()
    slug = seller.provider.slug
    rows = earnings.by_day(slug, since=now - LOOKED_BACK, until=now)
    offers = list(seller.provider.offers.order_by("sku"))
    context = {
        "seller": seller,
        "others": sellers_of(member).exclude(pk=seller.pk),
        "rows": rows,
        "earned_pico": sum(row.credit_pico for row in rows),
        "paid_pico": sum(row.paid_pico for row in rows),
        "owed_pico": payouts.owed_pico(slug),
        "payouts": payouts.of(slug, limit=PAYOUTS_SHOWN),
        "share_percent": f"{seller.house_share_ppm / PPM_PER_PERCENT:g}",
        "offers": [(offer, _asks(offer.sku, now)) for offer in offers],
        "form": form or AskForm(seller=seller),
        "month": months.named("", now=now),
    }
    return render_page(request, "console/selling.html", context, nav="selling", member=member)


def _asks(sku: str, now: datetime) -> list[price_queries.ListPrice]:
    return price_queries.standing(now, sku)
