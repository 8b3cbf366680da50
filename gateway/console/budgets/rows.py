"""What the budgets page shows: each limit with its scope's name and what is used of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from redis.exceptions import RedisError

from billing import audit
from billing.credit import balances as credit
from billing.credit.balances import Balance
from billing.holding import quota_registers
from billing.limits import credit_alerts
from billing.models import (
    AlertChannel,
    AlertDelivery,
    Quota,
    RateLimit,
    ScopeKind,
    Tenant,
)
from billing.money import usd
from gateway.alerts import delivery as alert_delivery
from gateway.console.requests import refusal_queries
from gateway.models import ApiKey, Refusal, Team
from gateway.tenants import audit_lines
from gateway.tenants.audit_lines import AuditLine

CHANGES_SHOWN = 20
WATCHED_SHOWN = 10
WATCHED_FOR = timedelta(days=30)

Names = Mapping[tuple[str, str], str]


@dataclass(frozen=True, slots=True)
class QuotaRow:
    """`spent_pico` is None for sessions, which have a total each."""

    quota_id: int
    scope: str
    window: str
    limit_pico: int
    spent_pico: int | None
    shadow: bool
    raised_until: datetime | None

    @property
    def share(self) -> float:
        if self.spent_pico is None:
            return 0.0
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


@dataclass(frozen=True, slots=True)
class Scope:
    """What a limit can apply to, or does although it can be chosen no more."""

    kind: str
    scope_id: str
    name: str
    choice: str
    is_live: bool = True


def scopes(tenant: Tenant) -> list[Scope]:
    """The tenant, its teams and its keys, by name."""
    teams = Team.objects.filter(tenant=tenant).order_by("name").values_list("pk", "name")
    keys = ApiKey.objects.filter(tenant=tenant).order_by("name")
    told = keys.values_list("pk", "name", "public_id", "revoked_at")
    everything = f"All of {tenant.name}"
    return [
        Scope(ScopeKind.TENANT, str(tenant.pk), everything, everything),
        *(Scope(ScopeKind.TEAM, str(pk), *(f"Team {name}",) * 2) for pk, name in teams),
        *(
            Scope(ScopeKind.KEY, str(pk), f"Key {name}", f"Key {name} (tk-{public})", not revoked)
            for pk, name, public, revoked in told
        ),
    ]


def choices(found: Sequence[Scope]) -> list[tuple[str, str]]:
    """As `kind:id` with a name."""
    return [(f"{each.kind}:{each.scope_id}", each.choice) for each in found if each.is_live]


def cap_choices(found: Sequence[Scope], tenant: Tenant) -> list[tuple[str, str]]:
    """Everything a budget can apply to; a model or provider is named beside it."""
    return [
        *choices(found),
        (f"{ScopeKind.MODEL}:", "All spending on one model"),
        (f"{ScopeKind.PROVIDER}:", "All spending at one provider"),
        (f"{ScopeKind.SESSION}:{tenant.pk}", "Each session"),
    ]


def names(found: Sequence[Scope]) -> Names:
    return {(each.kind, each.scope_id): each.name for each in found}


def quota_rows(found: Sequence[Quota], named: Names, now: datetime) -> list[QuotaRow]:
    capped = [quota for quota in found if quota.scope_kind != ScopeKind.SESSION]
    spent = quota_registers.of_quotas(capped, now)
    return [
        QuotaRow(
            quota_id=int(quota.pk),
            scope=_scope_name(quota, named),
            window=quota.get_window_display(),
            limit_pico=quota.limit_at(now),
            spent_pico=spent[int(quota.pk)].spent_pico if int(quota.pk) in spent else None,
            shadow=quota.shadow,
            raised_until=quota.raised_until if _is_raised(quota, now) else None,
        )
        for quota in found
    ]


def _is_raised(quota: Quota, now: datetime) -> bool:
    return quota.raised_until is not None and now < quota.raised_until


def _scope_name(quota: Quota, named: Names) -> str:
    if quota.scope_kind == ScopeKind.SESSION:
        return "Each session"
    unnamed = f"{quota.get_scope_kind_display()} {quota.scope_id}"
    return named.get((quota.scope_kind, quota.scope_id), unnamed)


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """Where budgets are told of; `secret` is what a webhook's receiver checks signatures with."""

    channel: AlertChannel
    secret: str
    last: AlertDelivery | None


def channels(tenant: Tenant) -> list[ChannelRow]:
    found = AlertChannel.objects.filter(tenant=tenant).order_by("pk")
    newest = AlertDelivery.objects.filter(channel__tenant=tenant).order_by("channel", "-pk")
    last = {delivery.channel_id: delivery for delivery in newest.distinct("channel")}
    return [
        ChannelRow(
            channel=channel,
            secret=alert_delivery.secret_of(channel)
            if channel.kind == AlertChannel.Kind.WEBHOOK
            else "",
            last=last.get(channel.pk),
        )
        for channel in found
    ]


def low_credit_terms(tenant: Tenant) -> dict[str, Decimal]:
    """Below which sum somebody is told, as the form shows it."""
    below_pico = credit_alerts.threshold_pico(tenant)
    return {} if below_pico is None else {"below_usd": usd(below_pico).normalize()}


@dataclass(frozen=True, slots=True)
class LowCredit:
    """Less is left than the tenant wants to have."""

    left_pico: int
    below_pico: int


def low_credit(tenant: Tenant) -> LowCredit | None:
    """None where enough is left, nobody has said how much that is, or Redis is away."""
    below_pico = credit_alerts.threshold_pico(tenant)
    if below_pico is None or (balance := balance_or_none(tenant)) is None:
        return None
    left_pico = balance.credit_pico - balance.spent_pico
    return LowCredit(left_pico, below_pico) if left_pico < below_pico else None


@dataclass(frozen=True, slots=True)
class Watched:
    """What watching budgets would have refused lately."""

    count: int
    newest: list[Refusal]


def watched(tenant: Tenant, now: datetime) -> Watched:
    since = now - WATCHED_FOR
    return Watched(*refusal_queries.watched(int(tenant.pk), since=since, limit=WATCHED_SHOWN))


def changes(tenant: Tenant) -> list[AuditLine]:
    """Who last changed limits of this tenant."""
    found = audit.newest(
        tenant, actions=("quota.", "rate_limit.", "tenant.", "alert_"), limit=CHANGES_SHOWN
    )
    return audit_lines.read(found)


def rate_rows(found: Sequence[RateLimit], named: Names) -> list[RateRow]:
    return [
        RateRow(
            scope=named.get((r.scope_kind, str(r.scope_id)), f"{r.scope_kind} {r.scope_id}"),
            limit=r,
        )
        for r in found
    ]


def balance_or_none(tenant: Tenant) -> Balance | None:
    try:
        return credit.balance(tenant)
    except RedisError:
        return None
