"""Price lists: what a plan or a tenant pays instead of the list price, and what we pay suppliers.

A rule says how far prices differ, in parts per million; what it makes of a list price is quantised
to whole pico-dollars in a version of its own, which is pinned, rated and shown like any other. A
new list price or a changed rule makes new versions; none is ever rewritten. Writers hold
`locks.prices_until_commit`.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from django.db import transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from billing import audit, locks
from billing.errors import PriceRefused
from billing.models import PriceList, PriceRule, PriceVersion
from billing.prices.patterns import covers, require_match, under
from billing.rates import CHANGE_PPM_MAX, CHANGE_PPM_MIN, Rates

Kind = PriceList.Kind
BATCH_SIZE: Final = 1_000


def cost_list() -> PriceList:
    """What we pay suppliers. Without a rule that is the list price."""
    made, _ = PriceList.objects.get_or_create(
        kind=Kind.COST, defaults={"slug": "cost", "name": "What suppliers charge us"}
    )
    return made


def set_rule(
    *,
    price_list: PriceList,
    pattern: str,
    change_ppm: int | None,
    actor: str,
    now: datetime,
    note: str = "",
) -> int:
    """Let a rule hold from now on, or end it (None); returns how many prices it made or ended.

    PriceRefused where the pattern or the change makes no sense, or no price matches. What
    suppliers charge may be said before they have a price: a seller's share is set first.
    """
    _check(price_list, pattern, change_ppm)
    if change_ppm is not None and price_list.kind != Kind.COST:
        require_match(pattern, now=now)
    with transaction.atomic():
        locks.prices_until_commit()
        before = PriceRule.objects.filter(
            price_list=price_list, pattern=pattern, ended_at=None
        ).first()
        if before is not None and before.begins_at >= now:
            raise PriceRefused("a rule begins after the one before it")
        if (before.change_ppm if before else None) == change_ppm:
            return 0
        if before is not None:
            before.ended_at = now
            before.save(update_fields=["ended_at"])
        if change_ppm is not None:
            PriceRule.objects.create(
                price_list=price_list,
                pattern=pattern,
                change_ppm=change_ppm,
                note=note,
                recorded_by=actor,
                begins_at=now,
            )
        audit.record(
            actor=actor,
            action="price_rule.set",
            subject=f"{price_list.slug}: {pattern or 'everything'}",
            tenant=price_list.tenant,
            before={"change_ppm": before.change_ppm} if before else None,
            after=None if change_ppm is None else {"change_ppm": change_ppm},
            reason=note,
            now=now,
        )
        return _make_again(price_list, pattern, now, actor)


def _check(price_list: PriceList, pattern: str, change_ppm: int | None) -> None:
    if len(pattern) > 200 or not pattern.isprintable():
        raise PriceRefused("a pattern is a sku, a provider's skus (openai/) or nothing for all")
    if change_ppm is None:
        return
    if type(change_ppm) is not int or not CHANGE_PPM_MIN <= change_ppm <= CHANGE_PPM_MAX:
        raise PriceRefused(f"a change lies between -100 % and +1000 %: {change_ppm!r}")
    if price_list.kind != Kind.COST and change_ppm == CHANGE_PPM_MIN and not pattern:
        raise PriceRefused("not everything is free: name a sku or a provider")


def change_for(rules: Iterable[PriceRule], sku: str) -> int | None:
    """What the most exact of these rules says of a sku; None where none does."""
    fitting = [rule for rule in rules if covers(rule.pattern, sku)]
    # A sku that ends with a slash does not exist; the longest pattern is the most exact.
    best = max(fitting, key=lambda rule: len(rule.pattern), default=None)
    return None if best is None else best.change_ppm


def _rules(price_list: PriceList) -> list[PriceRule]:
    return list(PriceRule.objects.filter(price_list=price_list, ended_at=None))


def follow(published: Sequence[PriceVersion]) -> None:
    """Make every price list's versions of these new list prices. The caller holds the lock."""
    by_list: dict[int, list[PriceRule]] = defaultdict(list)
    for rule in PriceRule.objects.filter(ended_at=None).select_related("price_list"):
        by_list[rule.price_list_id].append(rule)
    for rules in by_list.values():
        price_list = rules[0].price_list
        made = [
            _made(version, price_list, change, version.during)
            for version in published
            if (change := change_for(rules, version.sku.code)) is not None
        ]
        PriceVersion.objects.bulk_create(made, batch_size=BATCH_SIZE)


def _make_again(price_list: PriceList, pattern: str, now: datetime, actor: str) -> int:
    """Bring a list's versions under a pattern in line with its rules, from now on."""
    rules = _rules(price_list)
    still = DateTimeTZRange(now, None)
    own = under(PriceVersion.objects.filter(price_list=price_list), pattern)
    standing = {
        version.made_from_id: version
        for version in own.filter(during__overlap=still).select_related("sku")
    }
    bases = under(PriceVersion.objects.filter(price_list=None), pattern)
    fresh: list[PriceVersion] = []
    for base in bases.filter(during__overlap=still).select_related("sku"):
        change = change_for(rules, base.sku.code)
        version = standing.get(base.pk)
        if version is not None and version.change_ppm == change:
            del standing[base.pk]
        elif change is not None:
            lower = max(base.during.lower, now)
            during = DateTimeTZRange(lower, base.during.upper, "[)")
            fresh.append(_made(base, price_list, change, during))
    for version in standing.values():
        _end(version, now)
    for version in fresh:
        version.recorded_by = actor
    PriceVersion.objects.bulk_create(fresh, batch_size=BATCH_SIZE)
    return len(fresh) + len(standing)


def _end(version: PriceVersion, now: datetime) -> None:
    """A version that has not begun is taken back; one that is in force ends now."""
    if version.during.lower >= now:
        version.delete()
    else:
        version.during = DateTimeTZRange(version.during.lower, now, "[)")
        version.save(update_fields=["during"])


def _made(
    base: PriceVersion, price_list: PriceList, change_ppm: int, during: DateTimeTZRange
) -> PriceVersion:
    rates = Rates(**{name: getattr(base, name) for name in Rates.__slots__}).changed(change_ppm)
    rates.check()
    return PriceVersion(
        sku=base.sku,
        service_tier=base.service_tier,
        context_over=base.context_over,
        from_minute=base.from_minute,
        to_minute=base.to_minute,
        during=during,
        free=rates.all_zero,
        price_list=price_list,
        made_from=base,
        change_ppm=change_ppm,
        source=base.source,
        recorded_by=base.recorded_by,
        **dict(rates.items()),
    )
