"""Builds the snapshot from Postgres: the only module of the data plane that touches the ORM.

Blocking; runs in the snapshot keeper's threads, never in the event loop.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from django.conf import settings
from django.db import DatabaseError, close_old_connections
from django.db.models import Q, QuerySet

from billing import price_lists
from billing.holds import RateScope, SpendScope
from billing.models import Quota, RateLimit, ShardEpoch
from billing.money import nano_floor
from gateway.dataplane.auth import KeyHash, Principal
from gateway.dataplane.snapshot import Snapshot, SourceAway
from gateway.models import ApiKey, RoutingPolicy
from gateway.routing.policies import PolicyView
from providers import measurements, offers
from providers.chat import OfferView

Scope = tuple[str, int]


class DatabaseSource:
    """See the module."""

    def load(self, now_ms: int) -> Snapshot:
        close_old_connections()
        now = datetime.fromtimestamp(now_ms / 1000, tz=UTC)
        live = ApiKey.objects.filter(revoked_at=None).filter(
            Q(expires_at=None) | Q(expires_at__gt=now)
        )
        return Snapshot(
            keys=_principals(live),
            offers_by_model=_by_model(offers.views(now)),
            speeds=measurements.speeds(),
            epochs=dict(ShardEpoch.objects.values_list("shard", "epoch")),
            loaded_ms=now_ms,
        )

    def find_key(self, key_hash: KeyHash) -> Principal | None:
        close_old_connections()
        try:
            found = _principals(ApiKey.objects.filter(key_hash=key_hash, revoked_at=None))
        except DatabaseError as problem:
            raise SourceAway(str(problem)) from problem
        return found.get(key_hash)


def _principals(keys: "QuerySet[ApiKey]") -> dict[KeyHash, Principal]:
    rows = list(keys.select_related("tenant"))
    tenants = {key.tenant_id for key in rows}
    spend = _spend_scopes(tenants)
    rates = _rate_scopes(tenants)
    policies = _policies(tenants)
    lists = price_lists.lists_by_tenant(tenants)
    return {
        bytes(key.key_hash): _principal(key, spend, rates, policies, lists[key.tenant_id])
        for key in rows
    }


def _principal(
    key: ApiKey,
    spend: Mapping[Scope, tuple[SpendScope, ...]],
    rates: Mapping[Scope, RateScope],
    policies: Mapping[tuple[int, int | None], PolicyView],
    lists: tuple[int, ...],
) -> Principal:
    scopes: list[Scope] = [("tenant", key.tenant_id), ("key", key.pk)]
    if key.team_id is not None:
        scopes.insert(1, ("team", key.team_id))
    own = policies.get((key.tenant_id, key.team_id))
    return Principal(
        key_id=key.pk,
        public_id=key.public_id,
        name=key.name,
        tenant_id=key.tenant_id,
        tenant_slug=key.tenant.slug,
        team_id=key.team_id,
        scopes=frozenset(key.scopes),
        models_allowed=frozenset(key.models_allowed),
        expires_at_ms=int(key.expires_at.timestamp() * 1000) if key.expires_at else None,
        max_output_tokens=key.tenant.max_output_tokens,
        cache_salt=_cache_salt(key.tenant_id),
        spend=tuple(cap for scope in scopes for cap in spend.get(scope, ())),
        rates=tuple(rates[scope] for scope in scopes if scope in rates),
        policy=own or policies.get((key.tenant_id, None)) or PolicyView(),
        price_lists=lists,
    )


def _cache_salt(tenant_id: int) -> str:
    """Keeps one tenant's prefix cache out of another's reach, without telling workers who it is."""
    secret = settings.SECRET_KEY.encode()
    return hmac.new(secret, f"cache-salt:{tenant_id}".encode(), hashlib.sha256).hexdigest()[:32]


def _spend_scopes(tenants: set[int]) -> dict[Scope, tuple[SpendScope, ...]]:
    found: dict[Scope, tuple[SpendScope, ...]] = {}
    for quota in Quota.objects.filter(tenant_id__in=tenants).order_by("pk"):
        scope = (quota.scope_kind, quota.scope_id)
        cap = SpendScope(
            kind=quota.scope_kind,
            id=str(quota.scope_id),
            window=quota.window,
            limit_nano=nano_floor(int(quota.limit_pico)),
        )
        found[scope] = (*found.get(scope, ()), cap)
    return found


def _rate_scopes(tenants: set[int]) -> dict[Scope, RateScope]:
    return {
        (limit.scope_kind, limit.scope_id): RateScope(
            kind=limit.scope_kind,
            id=str(limit.scope_id),
            rpm=limit.rpm,
            tpm=limit.tpm,
            concurrency=limit.concurrency,
        )
        for limit in RateLimit.objects.filter(tenant_id__in=tenants)
    }


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


def _by_model(views: Iterable[OfferView]) -> dict[str, tuple[OfferView, ...]]:
    found: dict[str, list[OfferView]] = {}
    for view in views:
        found.setdefault(view.model, []).append(view)
    return {model: tuple(group) for model, group in found.items()}
