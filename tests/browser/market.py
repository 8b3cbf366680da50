"""A market with traffic for the browser to look at: every kind of row that a page can hold."""

from datetime import datetime, timedelta

from django.utils import timezone

from billing.credit import balances as credit
from billing.models import Quota, RateLimit
from gateway.tenants import keys, sellers
from providers.boards import leaderboards
from providers.models import Provider
from tests.gateway.console_rows import Priced, measured, offer, refused, request_id_at, served
from tests.people import Person

RANKING = {
    "policy": "cheapest",
    "expected_tokens": {"input": 900, "output": 256},
    "candidates": [
        {
            "rank": 1,
            "offer": "in-house/small/ngram",
            "expected_usd": "0.000114",
            "greatest_usd": "0.0013",
            "score": 1.0,
            "why": "costs about $0.000114",
        }
    ],
    "rejections": [{"offer": "acme/small", "code": "no_credential", "reason": "no credential"}],
}


def make_market(person: Person, *, now: datetime) -> Priced:
    """Returns the offer that sells most; everything is committed."""
    tenant = person.tenant
    own = Provider.Kind.IN_HOUSE
    plain = offer(
        "in-house", "small", variant="plain", kind=own, techniques=["paged-kv"], output_pico=500_000
    )
    ngram = offer(
        "in-house", "small", variant="ngram", kind=own, techniques=["ngram-speculation"],
        output_pico=300_000,
    )  # fmt: skip
    outside = offer(since=now - timedelta(days=200))
    for sold, requests, tps in ((plain, 120, 61.0), (ngram, 310, 97.0), (outside, 12, 240.0)):
        measured(sold, at=now, requests=requests, tps=tps, ttft_ms=58.0)
    credit.grant(tenant=tenant, amount_pico=5 * 10**12, reason="test", created_by="tests")
    key = keys.issue(tenant=tenant, name="web app", created_by="alice", now=now).key
    Quota.objects.create(
        tenant=tenant, scope_kind="tenant", scope_id=tenant.pk, window="month", limit_pico=10**12
    )
    RateLimit.objects.create(tenant=tenant, scope_kind="key", scope_id=key.pk, rpm=60)
    for hours in (1, 2, 26, 50, 74, 98, 122):
        for sold in (plain, ngram, outside):
            served(tenant, sold, at=now - timedelta(hours=hours), key_id=key.pk, ranking=RANKING)
    sellers.register(
        team=person.team,
        provider=Provider.objects.get(slug="acme"),
        house_share_ppm=100_000,
        actor="tests",
        now=now,
    )
    _failover(person, ngram, outside, now)
    refused(tenant, at=now - timedelta(seconds=30), key_id=key.pk)
    leaderboards.refresh(now=timezone.now())
    return ngram


def _failover(person: Person, served_by: Priced, failed: Priced, now: datetime) -> None:
    at = now - timedelta(minutes=1)
    request_id = request_id_at(at - timedelta(milliseconds=4))
    served(
        person.tenant, failed, at=at, request_id=request_id, outcome="upstream_error",
        billable=False, output_tokens=0, ttft_ms=None, e2e_ms=612.0, error="rate_limited",
        status=429, ranking=RANKING,
    )  # fmt: skip
    served(
        person.tenant, served_by, at=at + timedelta(milliseconds=640), request_id=request_id,
        attempt=2,
    )  # fmt: skip
