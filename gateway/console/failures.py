"""What the console answers when a page could not be made: its own fault, or PostgreSQL away."""

import sys
from typing import Final

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.template import loader

AWAY: Final = (OperationalError, InterfaceError)
RETRY_AFTER_S: Final = "2"


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's own, for all that nobody expected; neither page asks the database."""
    if isinstance(sys.exc_info()[1], AWAY):
        page = loader.render_to_string("503.html")
        return HttpResponse(page, status=503, headers={"Retry-After": RETRY_AFTER_S})
    return HttpResponse(loader.render_to_string("500.html"), status=500)
