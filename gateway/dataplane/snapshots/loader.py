"""Builds the snapshot from Postgres: the only module of the data plane that touches the ORM.

Blocking; runs in the snapshot keeper's threads, never in the event loop.
"""

import hashlib
import hmac
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import DatabaseError, close_old_connections
from django.db.models import Q, QuerySet

from billing import registers
from billing.holding import hold_modes, key_makers
from billing.holding.holds import RateScope, SpendScope
from billing.models import CallProfile, Quota, RateLimit, ScopeKind, ShardEpoch, Tenant
from billing.money import nano_floor
from billing.prices import plans
from billing.prices.price_spans import ListSpans
from gateway.database import schema_check
from gateway.dataplane.auth import CallUse, KeyHash, Principal
from gateway.dataplane.snapshots.snapshot import Snapshot, SourceAway
from gateway.models import ApiKey, RoutingPolicy
from gateway.routing.names import OffersByModel
from gateway.routing.policies import PolicyView
from providers.boards import counted_texts, measurements
from providers.chat import OfferView
from providers.market import offers

Scope = tuple[int, str, str]  # tenant, kind, id


class DatabaseSource:
    """See the module."""

    def __init__(self) -> None:
        self._is_schema_known = False
        self._counted_texts: dict[tuple[str, str], bytes] = {}
        self._counted_upto = 0
        # A key that is found between two loads has the terms since the last one.
        self._loaded_at = registers.EPOCH

    def load(self, now_ms: int) -> Snapshot:
        close_old_connections()
        self.check_schema()
        now = registers.EPOCH + timedelta(milliseconds=now_ms)
        self._loaded_at = now
        live = ApiKey.objects.filter(revoked_at=None).filter(
            Q(expires_at=None) | Q(expires_at__gt=now)
        )
        return Snapshot(
            keys=_principals(live, now),
            offers_by_model=offers_by_model(now),
            speeds=measurements.speeds(),
            epochs=dict(ShardEpoch.objects.values_list("shard", "epoch")),
            counted_texts=self._all_counted_texts(),
            loaded_ms=now_ms,
        )

    def _all_counted_texts(self) -> dict[tuple[str, str], bytes]:
        """Only what has changed is read again; the others stay the same objects."""
        found, self._counted_upto = counted_texts.changed(self._counted_upto)
        if found:
            self._counted_texts = self._counted_texts | found
        return self._counted_texts

    def check_schema(self) -> None:
        """SchemaNewer where a later release has been here; asked until Postgres has answered."""
        self._is_schema_known = self._is_schema_known or schema_check.check()

    def find_key(self, key_hash: KeyHash) -> Principal | None:
        close_old_connections()
        try:
            asked = ApiKey.objects.filter(key_hash=key_hash, revoked_at=None)
            found = _principals(asked, self._loaded_at)
        except DatabaseError as problem:
            raise SourceAway(str(problem)) from problem
        return found.get(key_hash)

    def credit_version(self, tenant: int) -> int:
        close_old_connections()
        try:
            return Tenant.objects.only("credit_version").get(pk=tenant).credit_version
        except (DatabaseError, Tenant.DoesNotExist) as problem:
            raise SourceAway(str(problem)) from problem


def _principals(keys: "QuerySet[ApiKey]", since: datetime) -> dict[KeyHash, Principal]:
    rows = list(keys.select_related("tenant", "team"))
    tenants = {key.tenant_id for key in rows}
    terms = _Terms(
        spend=_spend_scopes(tenants),
        rates=_rate_scopes(tenants),
        policies=_policies(tenants),
        profiles=_profiles(tenants),
        price_lists=plans.lists_by_tenant(tenants, since=since),
        makers=key_makers.lines(tenants),
    )
    return {bytes(key.key_hash): _principal(key, terms) for key in rows}


@dataclass(frozen=True, slots=True)
class _Terms:
    """What holds for the tenants of some keys."""

    spend: Mapping[Scope, tuple[SpendScope, ...]]
    rates: Mapping[Scope, RateScope]
    policies: Mapping[tuple[int, int | None], PolicyView]
    profiles: Mapping[tuple[int, int | None], Mapping[str, CallUse]]
    price_lists: Mapping[int, ListSpans]
    makers: Mapping[tuple[int, int], tuple[int, ...]]


def _principal(key: ApiKey, terms: _Terms) -> Principal:
    tenant_id = key.tenant_id
    scopes: list[Scope] = [
        (tenant_id, ScopeKind.TENANT, str(tenant_id)),
        (tenant_id, ScopeKind.KEY, str(key.pk)),
        *(
            (tenant_id, ScopeKind.KEY, str(maker))
            for maker in terms.makers.get((tenant_id, key.pk), ())
        ),
    ]
    if key.team_id is not None:
        scopes.insert(1, (tenant_id, ScopeKind.TEAM, str(key.team_id)))
    policies = terms.policies
    sessions = terms.spend.get((tenant_id, ScopeKind.SESSION, str(tenant_id)), ())
    return Principal(
        key_id=key.pk,
        public_id=key.public_id,
        name=key.name,
        tenant_id=tenant_id,
        tenant_slug=key.tenant.slug,
        team_id=key.team_id,
        scopes=frozenset(key.scopes),
        models_allowed=frozenset(key.models_allowed),
        expires_at_ms=int(key.expires_at.timestamp() * 1000) if key.expires_at else None,
        max_output_tokens=key.tenant.max_output_tokens,
        cache_salt=_cache_salt(tenant_id),
        spend=tuple(cap for scope in scopes for cap in terms.spend.get(scope, ())),
        rates=tuple(terms.rates[scope] for scope in scopes if scope in terms.rates),
        policy=policies.get((tenant_id, key.team_id))
        or policies.get((tenant_id, None))
        or PolicyView(),
        spend_by_model=_named(terms.spend, tenant_id, ScopeKind.MODEL),
        spend_by_provider=_named(terms.spend, tenant_id, ScopeKind.PROVIDER),
        session_cap=sessions[0] if sessions else None,
        overdraft_nano=nano_floor(hold_modes.overdraft_of(key.tenant)),
        # A key's own past counts before what the tenant's other keys do.
        call_use={
            **terms.profiles.get((tenant_id, None), {}),
            **terms.profiles.get((tenant_id, key.pk), {}),
        },
        price_lists=terms.price_lists[tenant_id],
        tenant_name=key.tenant.name,
        team_name=key.team.name if key.team is not None else "",
    )


def _named(
    spend: Mapping[Scope, tuple[SpendScope, ...]], tenant_id: int, kind: str
) -> dict[str, tuple[SpendScope, ...]]:
    return {
        name: caps
        for (tenant, scope_kind, name), caps in spend.items()
        if tenant == tenant_id and scope_kind == kind
    }


def _cache_salt(tenant_id: int) -> str:
    """Keeps one tenant's prefix cache out of another's reach, without telling workers who it is."""
    secret = settings.SECRET_KEY.encode()
    return hmac.new(secret, f"cache-salt:{tenant_id}".encode(), hashlib.sha256).hexdigest()[:32]


def _spend_scopes(tenants: set[int]) -> dict[Scope, tuple[SpendScope, ...]]:
    found: dict[Scope, tuple[SpendScope, ...]] = {}
    quotas = Quota.objects.filter(tenant_id__in=tenants).select_related("tenant")
    for quota in quotas.order_by("pk"):
        scope = (quota.tenant_id, quota.scope_kind, quota.scope_id)
        raised_until = quota.raised_until
        cap = SpendScope(
            kind=quota.scope_kind,
            id=registers.scope_part(quota.scope_id),
            window=quota.window,
            limit_nano=nano_floor(int(quota.limit_pico)),
            zone=quota.tenant.time_zone,
            raised_nano=nano_floor(int(quota.raised_pico or 0)),
            raised_until_ms=int(raised_until.timestamp() * 1000) if raised_until else 0,
            shadow=quota.shadow,
        )
        found[scope] = (*found.get(scope, ()), cap)
    return found


def _rate_scopes(tenants: set[int]) -> dict[Scope, RateScope]:
    return {
        (limit.tenant_id, limit.scope_kind, str(limit.scope_id)): RateScope(
            kind=limit.scope_kind,
            id=str(limit.scope_id),
            rpm=limit.rpm,
            tpm=limit.tpm,
            concurrency=limit.concurrency,
        )
        for limit in RateLimit.objects.filter(tenant_id__in=tenants)
    }


def _profiles(tenants: set[int]) -> dict[tuple[int, int | None], dict[str, CallUse]]:
    """By tenant and key (None: all of its keys), then by model."""
    found: dict[tuple[int, int | None], dict[str, CallUse]] = defaultdict(dict)
    rows = CallProfile.objects.filter(tenant_id__in=tenants, calls__gte=hold_modes.CALLS_MIN)
    for row in rows:
        found[row.tenant_id, row.api_key_id][row.model] = CallUse(
            calls=row.calls,
            whose="tenant" if row.api_key_id is None else "key",
            output_mean=row.output_mean,
            output_p95=row.output_p95,
            output_p99=row.output_p99,
            input_mean=row.input_mean,
            input_p95=row.input_p95,
            input_p99=row.input_p99,
        )
    return found


def _policies(tenants: set[int]) -> dict[tuple[int, int | None], PolicyView]:
    return {
        (row.tenant_id, row.team_id): PolicyView(
            kind=row.kind,
            pinned_skus=tuple(row.pinned_skus),
            providers_allowed=frozenset(row.providers_allowed),
            max_input_pico=row.max_input_pico,
            max_output_pico=row.max_output_pico,
            allow_fallbacks=row.allow_fallbacks,
        )
        for row in RoutingPolicy.objects.filter(tenant_id__in=tenants)
    }


def offers_by_model(now: datetime) -> OffersByModel:
    """Everything that is sold or says why it is not, with an index of its names."""
    found: dict[str, list[OfferView]] = {}
    for view in offers.views(now):
        found.setdefault(view.model, []).append(view)
    return OffersByModel({model: tuple(group) for model, group in found.items()})
