"""The declarative file: tenants with their teams, limits, policy, groups and keys, as YAML.

Unknown fields are refused, so that a slip of the pen does not silently do nothing. Sums are texts
in dollars, exact.
"""

from typing import Annotated, Any

import msgspec

from billing.kinds import Window
from billing.money import pico_from_usd
from gateway.kinds import KeyScope, Role
from gateway.routing.policies import PolicyKind

Slug = Annotated[str, msgspec.Meta(pattern=r"^[-a-zA-Z0-9_]{1,64}$")]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=120)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2_000_000_000)]
FILE_BYTES_MAX = 2_000_000


class DocumentRefused(ValueError):
    """The file does not say what it means; the text names the place."""


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Anything in the file."""


class DeclaredTeam(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`cost_centre`: left as it is if the file does not say."""

    slug: Slug
    name: Text
    cost_centre: Annotated[str, msgspec.Meta(max_length=64)] | None = None


class DeclaredQuota(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`scope`: `tenant`, `session`, `team <slug>`, `model <name>` or `provider <slug>`."""

    scope: Text
    window: Window
    limit_usd: str
    shadow: bool = False


class DeclaredRateLimit(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`scope`: `tenant` or `team <slug>`."""

    scope: Text
    rpm: Count | None = None
    tpm: Count | None = None
    concurrency: Count | None = None


class DeclaredPolicy(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: PolicyKind = PolicyKind.CHEAPEST
    pinned_skus: tuple[str, ...] = ()
    providers_allowed: tuple[str, ...] = ()
    allow_fallbacks: bool = True


class DeclaredGroup(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group at the identity provider."""

    group: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    role: Role = Role.DEVELOPER
    team: Slug | None = None


class DeclaredKey(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key is made where none of this name is live; its secret is told once."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=80)]
    team: Slug | None = None
    scopes: tuple[KeyScope, ...] = (KeyScope.INFERENCE,)
    models: tuple[str, ...] = ()


class DeclaredPlan(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plan, or null for list prices, from a day of the tenant's calendar or a moment on."""

    plan: Slug | None
    begins: Any


class DeclaredTenant(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`plan`: whose prices it pays, null for list prices; left as it is if the file is silent.
    `plans_to_come`: what takes its place, and when; no others are to come than these."""

    slug: Slug
    name: Text
    credit_limit_usd: str = "0"
    plan: Slug | None | msgspec.UnsetType = msgspec.UNSET
    plans_to_come: tuple[DeclaredPlan, ...] | msgspec.UnsetType = msgspec.UNSET
    teams: tuple[DeclaredTeam, ...] = ()
    quotas: tuple[DeclaredQuota, ...] = ()
    rate_limits: tuple[DeclaredRateLimit, ...] = ()
    policy: DeclaredPolicy | None = None
    groups: tuple[DeclaredGroup, ...] = ()
    keys: tuple[DeclaredKey, ...] = ()


class Document(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    tenants: tuple[DeclaredTenant, ...]


def read(text: bytes) -> Document:
    """The file, checked as far as it can be without looking at anything else."""
    if len(text) > FILE_BYTES_MAX:
        raise DocumentRefused(f"the file is larger than {FILE_BYTES_MAX} bytes")
    try:
        document = msgspec.yaml.decode(text, type=Document)
    except (msgspec.MsgspecError, RecursionError) as problem:
        raise DocumentRefused(str(problem)) from problem
    _once("tenant", [tenant.slug for tenant in document.tenants])
    for tenant in document.tenants:
        _check(tenant)
    return document


def _check(tenant: DeclaredTenant) -> None:
    teams = {team.slug for team in tenant.teams}
    where = f"tenant {tenant.slug}"
    _once(f"{where}: team", [team.slug for team in tenant.teams])
    _once(f"{where}: quota", [f"{q.scope}, {q.window}" for q in tenant.quotas])
    _once(f"{where}: rate limit", [limit.scope for limit in tenant.rate_limits])
    _once(f"{where}: group", [group.group for group in tenant.groups])
    _once(f"{where}: key", [key.name for key in tenant.keys])
    named = [group.team for group in tenant.groups] + [key.team for key in tenant.keys]
    scopes = [quota.scope for quota in tenant.quotas] + [r.scope for r in tenant.rate_limits]
    named += [scope.removeprefix("team ") for scope in scopes if scope.startswith("team ")]
    for team in named:
        if team is not None and team not in teams:
            raise DocumentRefused(f"{where}: there is no team {team} in the file")
    for quota in tenant.quotas:
        sum_of(quota.limit_usd, f"{where}: quota of {quota.scope}")
    sum_of(tenant.credit_limit_usd, f"{where}: credit limit")


def sum_of(usd: str, where: str) -> int:
    """A sum in pico-dollars."""
    try:
        pico = pico_from_usd(usd)
    except (ValueError, ArithmeticError):
        raise DocumentRefused(f'{where}: {usd!r} is not a sum like "12.50"') from None
    if pico < 0:
        raise DocumentRefused(f"{where}: a limit is not negative")
    return pico


def _once(what: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DocumentRefused(f"{what} {name} is there twice")
        seen.add(name)
