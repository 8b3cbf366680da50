"""Who may touch what in a tenant: the one rule, asked by pages, the management API and templates.

A person acts with a role and perhaps a team; a management key acts as an admin. Owners and admins
touch everything of their tenant. A developer touches what is their own team's (or no team's, where
they have none), and nothing that manages the tenant. What belongs to another tenant does not
exist; that is decided before anybody asks here. docs/roles.md is this rule as a table, tested
cell by cell.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from django.core.exceptions import PermissionDenied

from gateway.kinds import Role
from gateway.models import ApiKey, Seller
from gateway.tenants import keys


class Action(StrEnum):
    SEE = "see"
    SEE_MONEY = "see_money"
    MAKE_KEYS = "make_keys"
    REVOKE_KEYS = "revoke_keys"
    SELL = "sell"
    SET_LIMITS = "set_limits"
    SET_ALERTS = "set_alerts"
    SET_ROUTING = "set_routing"
    SET_TERMS = "set_terms"
    BUY_CREDIT = "buy_credit"
    MANAGE_TEAMS = "manage_teams"
    MANAGE_PEOPLE = "manage_people"


EVERYBODY: Final = frozenset(Role.values())
MANAGERS: Final = frozenset({Role.OWNER, Role.ADMIN})
BUILDERS: Final = MANAGERS | {Role.DEVELOPER}
ALLOWED: Final[Mapping[Action, frozenset[str]]] = {
    Action.SEE: EVERYBODY,
    Action.MAKE_KEYS: BUILDERS,
    Action.REVOKE_KEYS: BUILDERS,
    Action.SELL: BUILDERS,
    Action.SEE_MONEY: MANAGERS,
    Action.SET_LIMITS: MANAGERS,
    Action.SET_ALERTS: MANAGERS,
    Action.SET_ROUTING: MANAGERS,
    Action.SET_TERMS: MANAGERS,
    Action.BUY_CREDIT: MANAGERS,
    Action.MANAGE_TEAMS: MANAGERS,
    Action.MANAGE_PEOPLE: MANAGERS,
}


class Actor(Protocol):
    """Whoever acts in a tenant."""

    @property
    def role(self) -> str: ...

    @property
    def team_id(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Thing:
    """What is to be touched: whose team's it is, and whether it manages the whole tenant."""

    team_id: int | None
    manages: bool = False


def key_thing(key: ApiKey) -> Thing:
    return Thing(key.team_id, manages=keys.is_managing(key.scopes))


def seller_thing(seller: Seller) -> Thing:
    return Thing(seller.team_id)


def may(actor: Actor, action: Action, thing: Thing | None = None) -> bool:
    """Whether somebody may do this to a thing of their tenant; without one, to any at all."""
    if actor.role not in ALLOWED[action]:
        return False
    if thing is None or actor.role in MANAGERS:
        return True
    return thing.team_id == actor.team_id and not thing.manages


def require(actor: Actor, action: Action, thing: Thing | None = None) -> None:
    """Refuse with 403 unless that is allowed."""
    if may(actor, action, thing):
        return
    if thing is not None and may(actor, action):
        raise PermissionDenied("This belongs to another team, or manages the whole tenant.")
    raise PermissionDenied("Your role in this tenant does not allow this.")


def allowed(actor: Actor) -> dict[str, bool]:
    """What templates ask: each action by name."""
    return {action.value: may(actor, action) for action in Action}


def reaches_all_teams(actor: Actor) -> bool:
    return actor.role in MANAGERS
