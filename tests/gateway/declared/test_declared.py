"""The declarative file: planned, applied, and applied again without a change."""

import stat
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
import redis
from django.core.management import CommandError, call_command
from django.utils import timezone

from billing.models import AuditEntry, PlanAssignment, PriceList, Quota, RateLimit, Tenant
from billing.prices import plans
from gateway.models import ApiKey, GroupMapping, RoutingPolicy, Team
from gateway.tenants import keys

FILE = """
tenants:
  - slug: research
    name: Research
    credit_limit_usd: "250"
    teams:
      - {slug: nlp, name: NLP}
      - {slug: vision, name: Vision}
    quotas:
      - {scope: tenant, window: month, limit_usd: "500.25"}
      - {scope: team nlp, window: day, limit_usd: "20"}
      - {scope: model smollm2-135m-instruct, window: week, limit_usd: "5", shadow: true}
    rate_limits:
      - {scope: team vision, rpm: 60, concurrency: 4}
    policy: {kind: in_house_first}
    groups:
      - {group: ml, role: developer, team: nlp}
    keys:
      - {name: ci, team: nlp}
"""


@pytest.fixture
def file(tmp_path: Path, redis_client: redis.Redis, transactional_db: None) -> Path:
    path = tmp_path / "house.yaml"
    path.write_text(FILE)
    return path


def run(file: Path, *options: object) -> str:
    out = StringIO()
    call_command("apply", str(file), *map(str, options), stdout=out)
    return out.getvalue()


def test_a_plan_says_everything_and_makes_nothing(file: Path) -> None:
    # when
    shown = run(file, "--plan")
    # then
    assert shown.count("\n+ ") + shown.startswith("+ ") == 10
    assert "+ research, quota of team nlp per day: limit_usd 20, shadow False" in shown
    assert "10 changes to make" in shown
    assert (Tenant.objects.count(), ApiKey.objects.count()) == (0, 0)


def test_applying_twice_changes_nothing_the_second_time(file: Path, tmp_path: Path) -> None:
    # given
    secrets = tmp_path / "secrets"
    # when
    first, second = run(file, "--secrets", secrets), run(file, "--secrets", secrets)
    # then
    assert "10 changes made" in first
    assert second == "0 changes\n"
    tenant = Tenant.objects.get()
    assert tenant.credit_limit_pico == 250 * 10**12
    assert {team.slug for team in Team.objects.all()} == {"nlp", "vision"}
    assert sorted(Quota.objects.values_list("scope_kind", "window", "shadow")) == [
        ("model", "week", True),
        ("team", "day", False),
        ("tenant", "month", False),
    ]
    assert RateLimit.objects.get().rpm == 60
    assert RoutingPolicy.objects.get().kind == "in_house_first"
    assert GroupMapping.objects.get().team == Team.objects.get(slug="nlp")
    name, _, secret = secrets.read_text().strip().partition("=")
    assert name == "research/ci"
    assert keys.find(secret) == ApiKey.objects.get()
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    assert secret not in first
    assert AuditEntry.objects.filter(actor="declarative file").exists()


def test_only_what_differs_is_changed(file: Path) -> None:
    # given
    run(file)
    file.write_text(FILE.replace('"20"', '"30"').replace("name: NLP", "name: Language"))
    # when
    shown = run(file)
    # then
    assert "~ research, team nlp: NLP -> Language" in shown
    assert "limit_usd 20, shadow False -> limit_usd 30, shadow False" in shown
    assert "2 changes made" in shown


def test_what_the_file_does_not_name_is_left_alone(file: Path) -> None:
    # given
    run(file)
    file.write_text("tenants: []\n")
    # then
    assert run(file) == "0 changes\n"
    assert Quota.objects.count() == 3


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("slug: research", "slug: re search", "slug"),
        ('limit_usd: "20"', 'limit_usd: "-1"', "not negative"),
        ('limit_usd: "20"', 'limit_usd: "NaN"', "not a sum"),
        ('limit_usd: "20"', 'limit_usd: "٢٠"', "not a sum"),
        ('limit_usd: "20"', "limit_usd: 1e400", "not a sum"),
        ("window: day", "window: hour", "window"),
        ("scope: team nlp", "scope: team other", "no team other"),
        ("shadow: true", "shade: true", "shade"),
        ("{slug: vision, name: Vision}", "{slug: nlp, name: Vision}", "twice"),
        ("{kind: in_house_first}", "{kind: fairest}", "kind"),
        ("tenants:", "tenants: [", "YAML|parsing|expected|mapping"),
        ("tenants:", "- x", "mapping"),
    ],
)
def test_a_slip_of_the_pen_is_refused_and_nothing_made(
    old: str, new: str, why: str, file: Path
) -> None:
    # given
    file.write_text(FILE.replace(old, new, 1))
    # when
    with pytest.raises(CommandError, match=why):
        run(file)
    # then
    assert Tenant.objects.count() == 0


PLANNED = FILE.replace('credit_limit_usd: "250"', "plan: startup")


def plan_made(slug: str) -> PriceList:
    return PriceList.objects.create(kind=PriceList.Kind.PLAN, slug=slug, name=slug.title())


def test_a_tenant_is_put_on_its_plan_once(file: Path) -> None:
    # given
    startup = plan_made("startup")
    file.write_text(PLANNED)
    # when
    first, second = run(file), run(file)
    # then
    assert "+ research, plan: startup" in first
    assert second == "0 changes\n"
    assert plans.of(Tenant.objects.get(), timezone.now()) == startup
    assert PlanAssignment.objects.get().assigned_by == "declarative file"
    (entry,) = AuditEntry.objects.filter(action="tenant.plan")
    assert (entry.before, entry.after) == ({"plan": None}, {"plan": "startup"})


@pytest.mark.parametrize(
    ("then", "shown", "slug"),
    [
        ("plan: scale", "~ research, plan: startup -> scale", "scale"),
        ("plan: null", "~ research, plan: startup -> list prices", None),
        ("", "", "startup"),
    ],
)
def test_a_plan_changes_where_the_file_says_so(
    then: str, shown: str, slug: str | None, file: Path
) -> None:
    # given
    plan_made("startup"), plan_made("scale")
    file.write_text(PLANNED)
    run(file)
    file.write_text(PLANNED.replace("plan: startup", then))
    # when
    told = run(file)
    # then
    assert shown in told
    assert plans.slug_of(plans.of(Tenant.objects.get(), timezone.now())) == slug


def test_a_plan_that_does_not_exist_is_refused_with_those_that_do(file: Path) -> None:
    # given: the suppliers' list and a tenant's own are no plans
    plan_made("scale"), plan_made("growth")
    PriceList.objects.create(kind=PriceList.Kind.COST, slug="startup", name="What we pay")
    file.write_text(PLANNED)
    # when / then
    with pytest.raises(CommandError, match="no plan startup. There are: growth, scale"):
        run(file)
    assert Tenant.objects.count() == 0


def test_a_scope_that_is_none_is_refused(file: Path) -> None:
    # given
    run(file)
    file.write_text(FILE.replace("scope: team nlp", "scope: nlp"))
    # then
    with pytest.raises(CommandError, match="none of"):
        run(file)


def with_plans(*lines: str) -> str:
    return PLANNED.replace("plan: startup", "\n    ".join(("plan: startup", *lines)))


def coming() -> list[tuple[str | None, str]]:
    found = plans.coming([Tenant.objects.get().pk], timezone.now())
    return [(plans.slug_of(row.plan), row.assigned_at.isoformat()) for row in found]


def test_plans_to_come_are_as_the_file_says(file: Path) -> None:
    # given
    plan_made("startup"), plan_made("scale")
    year = timezone.now().year + 1
    first = ("plans_to_come:", f"  - {{plan: scale, begins: {year}-03-01}}")
    file.write_text(
        with_plans(*first, f'  - {{plan: null, begins: "{year}-06-01T12:00:00+02:00"}}')
    )
    # when / then: made, and nothing the second time
    told = run(file)
    assert "+ research, plan: startup" in told
    assert f"+ research, plan from 1 March {year}: scale" in told
    assert f"+ research, plan from 1 June {year}, 10:00 UTC: list prices" in told
    assert run(file) == "0 changes\n"
    assert coming() == [
        ("scale", f"{year}-03-01T00:00:00+00:00"),
        (None, f"{year}-06-01T10:00:00+00:00"),
    ]
    # and a file that is silent leaves them, one that names others withdraws
    file.write_text(PLANNED)
    assert run(file) == "0 changes\n"
    file.write_text(with_plans(*first[:1], f"  - {{plan: scale, begins: {year}-04-01}}"))
    told = run(file)
    assert f"~ research, plan from 1 March {year}: scale -> withdrawn" in told
    assert f"~ research, plan from 1 June {year}, 10:00 UTC: list prices -> withdrawn" in told
    assert coming() == [("scale", f"{year}-04-01T00:00:00+00:00")]
    assert run(file) == "0 changes\n"
    file.write_text(with_plans("plans_to_come: []"))
    assert "withdrawn" in run(file)
    assert (coming(), run(file)) == ([], "0 changes\n")


def test_what_was_to_come_holds_once_its_moment_has_passed(file: Path) -> None:
    # given: applied for the first time after that moment
    plan_made("startup"), plan_made("scale")
    file.write_text(with_plans("plans_to_come:", "  - {plan: scale, begins: 2020-03-01}"))
    # when / then
    assert "+ research, plan: scale" in run(file)
    assert run(file) == "0 changes\n"
    assert PlanAssignment.objects.get().assigned_at > timezone.now() - timedelta(minutes=1)


@pytest.mark.parametrize(
    ("stated", "why"),
    [
        ("{plan: nope, begins: 2999-01-01}", "there is no plan nope"),
        ("{plan: startup, begins: soon}", "neither a day"),
        ("{plan: startup, begins: 2026-12-01 00:00:00}", "says no time zone"),
        ("{plan: startup}", "begins"),
        ("{plan: startup, begins: 2999-01-01}", "within two years"),
    ],
)
def test_a_plan_to_come_that_makes_no_sense_is_refused(file: Path, stated: str, why: str) -> None:
    # given
    plan_made("startup"), plan_made("scale")
    file.write_text(PLANNED.replace("plan: startup", f"plan: scale\n    plans_to_come: [{stated}]"))
    # when
    with pytest.raises(CommandError, match=why):
        run(file)
    # then
    assert not PlanAssignment.objects.filter(plan__slug="startup").exists()
