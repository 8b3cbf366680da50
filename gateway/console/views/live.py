"""What live pages listen to: the boards for everyone, a tenant's requests for its members."""

from typing import Final

from asgiref.sync import sync_to_async
from django.db import connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.views.decorators.http import require_safe

from billing.books import usage_queries
from gateway.console.access import choose_member
from gateway.console.feeds import Feed
from gateway.console.requests import refusal_queries
from providers.boards import home as home_board
from providers.boards import leaderboards

EVERYONE: Final = 0


def _board_mark(_: int) -> str:
    return leaderboards.mark()


def _home_mark(_: int) -> str:
    return str(home_board.made_at())


def _requests_mark(tenant_id: int) -> str:
    newest_refusal = refusal_queries.newest_id(tenant_id)
    return f"{usage_queries.arrival_mark(tenant_id)}-{newest_refusal}"


BOARDS: Final = Feed(_board_mark, interval_s=1.0)
HOME: Final = Feed(_home_mark, interval_s=2.0)
REQUESTS: Final = Feed(_requests_mark, interval_s=0.4)


@require_safe
async def board(request: HttpRequest) -> HttpResponseBase:
    return BOARDS.respond(EVERYONE, caller=_address(request))


@require_safe
async def home(request: HttpRequest) -> HttpResponseBase:
    return HOME.respond(EVERYONE, caller=_address(request))


@require_safe
async def requests(request: HttpRequest) -> HttpResponseBase:
    tenant_id = await sync_to_async(_tenant_id)(request)
    if tenant_id is None:
        return HttpResponse("Sign in to follow your requests.\n", status=403)
    return REQUESTS.respond(tenant_id, caller=str(tenant_id))


def _address(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR", ""))


def _tenant_id(request: HttpRequest) -> int | None:
    """The member's tenant. A feed lasts minutes: its thread gives the connection back first."""
    try:
        member = choose_member(request)
        return None if member is None else int(member.tenant_id)
    finally:
        connections.close_all()
