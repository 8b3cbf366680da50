"""A board on the viewer's own mix: what their tenant really sends to a model."""

from datetime import timedelta
from typing import Final

from django.http import HttpRequest
from django.utils import timezone

from billing.books import usage_sums
from gateway.console.access import choose_member
from gateway.models import Member
from providers.boards.rows import Mix

LOOKED_BACK: Final = timedelta(days=30)
SOURCE: Final = "mine"


def wanted(request: HttpRequest) -> Member | None:
    """The member whose mix the URL asks for; None for the shared one, and for strangers."""
    return choose_member(request) if request.GET.get("mix") == SOURCE else None


def mix_of(slug: str, member: Member) -> Mix | None:
    """What the tenant sent to the model in the last 30 days; None where that was nothing."""
    now = timezone.now()
    found = usage_sums.used_by_offer(member.tenant_id, since=now - LOOKED_BACK, until=now)
    used = [u for u in found if u.model == slug]
    cached = sum(u.cache_read_tokens for u in used)
    output = sum(u.output_tokens for u in used)
    entered = sum(u.input_tokens for u in used)
    if not output or not entered:
        return None
    return Mix(
        uncached_tokens=entered - cached,
        cached_tokens=cached,
        output_tokens=output,
        requests=sum(u.requests for u in used),
        source=SOURCE,
    )
