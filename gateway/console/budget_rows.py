"""What the budgets page shows: each limit with its scope's name and what is used of it."""

from dataclasses import dataclass
from datetime import datetime

from redis.exceptions import RedisError

from billing import credit, quotas
from billing.credit import Balance
from billing.models import RateLimit, ScopeKind, Tenant
from gateway.models import ApiKey, Team


@dataclass(frozen=True, slots=True)
class QuotaRow:
    quota_id: int
    scope: str
    window: str
    limit_pico: int
    spent_pico: int

    @property
    def share(self) -> float:
        return min(1.0, self.spent_pico / self.limit_pico) if self.limit_pico else 1.0

    @property
    def width(self) -> int:
        return round(self.share * 100)

    @property
    def tone(self) -> str:
        return "full" if self.share >= 1 else "near" if self.share >= 0.8 else ""


@dataclass(frozen=True, slots=True)
class RateRow:
    scope: str
    limit: RateLimit


def scopes(tenant: Tenant) -> list[tuple[str, str]]:
    """Everything a limit can apply to, as `kind:id` with a name."""
    teams = Team.objects.filter(tenant=tenant).order_by("name")
    keys = ApiKey.objects.filter(tenant=tenant, revoked_at=None).order_by("name")
    return [
        (f"{ScopeKind.TENANT}:{tenant.pk}", f"All of {tenant.name}"),
        *((f"{ScopeKind.TEAM}:{team.pk}", f"Team {team.name}") for team in teams),
        *((f"{ScopeKind.KEY}:{key.pk}", f"Key {key.name} (tk-{key.public_id})") for key in keys),
    ]


def quota_rows(tenant: Tenant, now: datetime) -> list[QuotaRow]:
    names = _names(tenant)
    found = quotas.limits_for(tenant).quotas
    return [
        QuotaRow(
            quota_id=int(q.pk),
            scope=names.get((q.scope_kind, q.scope_id), f"{q.scope_kind} {q.scope_id}"),
            window=q.get_window_display(),
            limit_pico=int(q.limit_pico),
            spent_pico=quotas.spent_pico(
                int(tenant.pk),
                kind=q.scope_kind,
                scope_id=q.scope_id,
                window=q.window,
                day=now.date(),
            ),
        )
        for q in found
    ]


def rate_rows(tenant: Tenant) -> list[RateRow]:
    names = _names(tenant)
    found = quotas.limits_for(tenant).rates
    return [
        RateRow(
            scope=names.get((r.scope_kind, r.scope_id), f"{r.scope_kind} {r.scope_id}"), limit=r
        )
        for r in found
    ]


def balance_or_none(tenant: Tenant) -> Balance | None:
    try:
        return credit.balance(tenant)
    except RedisError:
        return None


def _names(tenant: Tenant) -> dict[tuple[str, int], str]:
    named: dict[tuple[str, int], str] = {
        (ScopeKind.TENANT, int(tenant.pk)): f"All of {tenant.name}"
    }
    for team in Team.objects.filter(tenant=tenant):
        named[ScopeKind.TEAM, int(team.pk)] = f"Team {team.name}"
    for key in ApiKey.objects.filter(tenant=tenant):
        named[ScopeKind.KEY, int(key.pk)] = f"Key {key.name}"
    return named
