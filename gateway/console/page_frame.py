"""The frame around every page: navigation, tenant, balance, theme."""

from collections.abc import Mapping
from typing import Final

from django.conf import settings
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from redis.exceptions import RedisError

from billing.credit import balances as credit
from gateway import months
from gateway.console.access import choose_member, memberships, sellers_of
from gateway.models import Member
from gateway.months import Month, NoSuchMonth
from gateway.tenants import roles

THEME_COOKIE: Final = "theme"
THEMES: Final = ("system", "light", "dark")
THEME_COOKIE_AGE_S: Final = 365 * 86_400


def render_page(
    request: HttpRequest,
    template: str,
    context: Mapping[str, object],
    *,
    nav: str,
    member: Member | None = None,
    status: int = 200,
) -> HttpResponse:
    """Render a page inside the frame; `nav` names the current entry of the navigation."""
    member = member or choose_member(request)
    frame = {
        "nav": nav,
        "member": member,
        "memberships": memberships(request.user) if isinstance(request.user, User) else [],
        "may": {} if member is None else roles.allowed(member),
        "sells": member is not None and sellers_of(member).exists(),
        "left_pico": None if member is None else _left(member),
        "theme": theme_of(request),
        "next_theme": THEMES[(THEMES.index(theme_of(request)) + 1) % len(THEMES)],
        "api_url": settings.PUBLIC_API_URL,
    }
    return render(request, template, {**frame, **context}, status=status)


def month_asked(request: HttpRequest) -> Month:
    """The month that the address names, else this one."""
    try:
        return months.named(request.GET.get("month", ""), now=timezone.now())
    except NoSuchMonth as refused:
        raise Http404(str(refused)) from None


def _left(member: Member) -> int | None:
    """What is left of the credit; unknown, not zero, while Redis is away."""
    try:
        return credit.balance(member.tenant).left_pico
    except RedisError:
        return None


def theme_of(request: HttpRequest) -> str:
    chosen = request.COOKIES.get(THEME_COOKIE, "system")
    return chosen if chosen in THEMES else "system"
