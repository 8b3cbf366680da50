"""What the console answers when a page could not be made: its own fault, PostgreSQL away, or too
much asked of it at once."""

import sys
from typing import Final

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template import loader
from psycopg.errors import QueryCanceled

from gateway.database.base import Busy

AWAY: Final = (OperationalError, InterfaceError)
RETRY_AFTER_S: Final = "2"
BUSY, TOO_SLOW, UNAVAILABLE = "busy", "too_slow", "unavailable"
SAID: Final = {
    BUSY: "Too many pages of this kind are being made. Others go on; try again in a moment.",
    TOO_SLOW: "This took longer than its kind may. Ask for less: a filter, a shorter span.",
    UNAVAILABLE: "A service behind the console is away. Nothing was changed; try again.",
}


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's own, for all that nobody expected; no page asks the database."""
    problem = sys.exc_info()[1]
    if not isinstance(problem, AWAY):
        return HttpResponse(loader.render_to_string("500.html"), status=500)
    headers = {"Retry-After": RETRY_AFTER_S}
    code = code_of(problem)
    if request.path.startswith("/api/"):
        # Before a view: who calls is asked of the database, too.
        said = {"status": 503, "code": code, "title": "Service Unavailable", "detail": SAID[code]}
        return JsonResponse(
            said, status=503, headers=headers, content_type="application/problem+json"
        )
    page = loader.render_to_string("503.html", {"code": code, "said": SAID[code]})
    return HttpResponse(page, status=503, headers=headers)


def code_of(problem: BaseException) -> str:
    """Why the database gave no answer."""
    cause = problem.__cause__
    if isinstance(cause, Busy):
        return BUSY
    return TOO_SLOW if isinstance(cause, QueryCanceled) else UNAVAILABLE
