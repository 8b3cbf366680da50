"""What came of an action, said on the page that the browser is sent to."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.contrib import messages
from django.http import HttpRequest

from billing.errors import BillingError
from gateway.tenants.members import MemberRefused


@contextmanager
def saying(request: HttpRequest, done: str) -> Iterator[None]:
    """Around a service's call: its refusal has changed nothing, and is said instead."""
    try:
        yield
    except (BillingError, MemberRefused) as refusal:
        messages.error(request, f"Nothing was changed: {refusal}.")
    else:
        messages.success(request, done)
