"""One of everything that a tenant can have, and addresses filled with it, for generated tests."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import redis
from django.contrib.auth.models import User
from django.utils import timezone

from billing.credit import balances as credit
from billing.invoicing import calendar_months, documents, receivables
from billing.limits import alert_channels, quotas
from billing.limits.quotas import Cap
from billing.models import AlertChannel, BillingProfile, ScopeKind, TopUp
from billing.operations import rebuild
from billing.payments import returns, topups
from billing.payments.facts import Paid, Refunded
from gateway.kinds import Role
from gateway.models import ApiKey, Member, RoutingPolicy, Team
from gateway.tenants import keys, members
from tests.gateway.console_rows import Priced, refused, served
from tests.people import Person

USD = 10**12
SELLER = {"legal_name": "Tokenhouse Ltd"}


@dataclass(frozen=True)
class Belongings:
    """What was made, and what stands for it in an address or a body."""

    person: Person
    request_id: UUID
    refused_id: UUID
    key: ApiKey
    other_team: Team
    ids: Mapping[str, str]

    def address(self, route: str, **changed: str) -> str:
        return filled(route, {**self.ids, **changed})


def filled(route: str, named: Mapping[str, str]) -> str:
    """A route with its arguments filled in."""
    return re.sub(r"<\w+:(\w+)>", lambda found: named[found[1]], route)


def routes_of(urlpatterns: Any) -> list[str]:
    return [pattern.pattern._route for pattern in urlpatterns]


def make(person: Person, sold: Priced, redis_client: redis.Redis, **use: Any) -> Belongings:
    """A key, a second team, a budget, a channel, an invitation, a colleague, requests of last
    month and of now, an invoice with a credit note, a purchase that was refunded in part."""
    tenant, now, who = person.tenant, timezone.now(), person.user.get_username()
    period = calendar_months.last_month(now, tenant.time_zone)
    rebuild.rebuild(redis_client, tenant.shard, now=now)
    key = keys.issue(tenant=tenant, team=person.team, name="first", created_by=who, now=now).key
    terms: dict[str, Any] = {"key_id": key.pk, "team_id": person.team.pk, **use}
    served(tenant, sold, at=period.start + timedelta(hours=30), **terms)
    event = served(tenant, sold, at=now - timedelta(hours=1), **terms)
    refusal = refused(tenant, at=now - timedelta(hours=1), key_id=key.pk)
    other_team = Team.objects.create(tenant=tenant, slug=f"other-{tenant.slug}", name="Other")
    RoutingPolicy.objects.create(tenant=tenant)
    cap = Cap(scope_kind=ScopeKind.KEY, scope_id=str(key.pk), window="month", limit_pico=USD)
    quota = quotas.set_quota(tenant=tenant, cap=cap, actor=who, now=now)
    channel = alert_channels.add(
        tenant=tenant, kind=AlertChannel.Kind.MAIL, target="a@b.example", actor=who, now=now
    )
    invited = members.invite(
        by=person.member, email="new@b.example", role="viewer", team=None, now=now
    )
    colleague = Member.objects.create(
        user=User.objects.create_user(f"colleague of {who}"),
        tenant=tenant,
        team=other_team,
        role=Role.DEVELOPER,
    )
    return Belongings(
        person=person,
        request_id=event.request_id,
        refused_id=refusal.request_id,
        key=key,
        other_team=other_team,
        ids={
            "tenant": tenant.slug,
            "slug": sold.offer.model.slug,
            "model": sold.offer.model.slug,
            "team": person.team.slug,
            "seller": "nobody",
            "request_id": str(event.request_id),
            "key_id": str(key.pk),
            "quota_id": str(quota.pk),
            "channel_id": str(channel.pk),
            "member_id": str(colleague.pk),
            "invitation_id": str(invited.invitation.pk),
            "token": invited.token,
            **_documents(person),
        },
    )


def _documents(person: Person) -> dict[str, str]:
    tenant, now = person.tenant, timezone.now()
    BillingProfile.objects.create(
        tenant=tenant,
        legal_name=tenant.name,
        address="Hauptstraße 1",
        country="DE",
        tax_name="VAT",
        tax_ppm=190_000,
    )
    drafted = documents.draft(
        tenant=tenant,
        period=calendar_months.last_month(now, tenant.time_zone),
        created_by="ada",
        now=now,
    )
    invoice = documents.finalise(invoice_id=drafted.pk, seller=SELLER, actor="ada", now=now)
    note = receivables.issue_credit_note(
        invoice_id=invoice.pk, net_cents=1, reason="slow", created_by="ada", now=now
    )
    topup = topups.start(tenant=tenant, net_cents=2_000, created_by="ada", now=now)
    reference = f"pi_{tenant.slug}"
    paid = Paid(
        key=str(topup.key),
        total_cents=topup.total_cents,
        currency="usd",
        reference=reference,
    )
    topups.paid(paid, seller=SELLER, now=now)
    returns.refunded(Refunded(reference=reference, refunded_cents=119), seller=SELLER, now=now)
    bought = TopUp.objects.get(pk=topup.pk)
    credit.grant(tenant=tenant, amount_pico=USD, reason="gift", created_by="ada")
    return {
        "invoice_id": str(invoice.pk),
        "number": str(invoice.number),
        "note_id": str(note.pk),
        "receipt_id": str(bought.receipt.pk),
        "refund_id": str(bought.refunds.get().pk),
    }
