"""Who needs a second factor to go on, and whether this session has given one.

Whoever has set one up gives it in every session, however that began: with a password, by single
sign-on, or before it was set up. Operators and members of tenants that demand it set one up before
they get anywhere. Kept in the session is what was proved; what is demanded is read anew each time.
"""

from enum import StrEnum
from typing import Final

from allauth.account.authentication import get_authentication_records
from allauth.account.internal.flows.login import record_authentication
from allauth.mfa.models import Authenticator
from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest

from gateway.models import Member, SignInRule

# The word under which the session's records say that a second factor was given.
PROOF: Final = "mfa"
PASSWORD: Final = "password"


class Missing(StrEnum):
    NOTHING = "nothing"
    PROOF = "proof"
    ENROLMENT = "enrolment"


def missing(request: HttpRequest, user: User) -> Missing:
    """What this session lacks."""
    if has_one(user):
        return Missing.NOTHING if _is_proved(request, user) else Missing.PROOF
    return Missing.ENROLMENT if is_demanded(user) else Missing.NOTHING


def has_one(user: User) -> bool:
    """Recovery codes alone are none: they stand in for one."""
    factors = Authenticator.objects.filter(user=user)
    return bool(factors.exclude(type=Authenticator.Type.RECOVERY_CODES).exists())


def holders(members: QuerySet[Member]) -> set[int]:
    """The users among these members who have one."""
    factors = Authenticator.objects.filter(user__in=members.values("user"))
    found = factors.exclude(type=Authenticator.Type.RECOVERY_CODES)
    return set(found.values_list("user_id", flat=True))


def is_demanded(user: User) -> bool:
    if user.is_staff and settings.OPERATORS_NEED_SECOND_FACTOR:
        return True
    return SignInRule.objects.filter(tenant__members__user=user, second_factor=True).exists()


def _is_proved(request: HttpRequest, user: User) -> bool:
    return any(
        record.get("method") == PROOF for record in get_authentication_records(request, user)
    )


def note_password(request: HttpRequest, user: User) -> None:
    """A password was typed just now: what asks for it again need not for some minutes."""
    record_authentication(request, user, PASSWORD, reauthenticated=True)


def note_proof(request: HttpRequest, user: User) -> None:
    """A factor was set up in this session, which is to have it."""
    record_authentication(request, user, PROOF)
