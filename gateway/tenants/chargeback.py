"""What each cost centre of a tenant used in a month, so that a company can pass its bill on.

From the rollups. Days are UTC and a request counts on its own day, so every request is in exactly
one month, and the rows sum to what the tenant was charged in it, to the pico-dollar.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Sum

from billing.models import Tenant, UsageDay
from gateway.models import Team
from gateway.months import Month


@dataclass(frozen=True, slots=True)
class Line:
    """One team's use of one model. Both names are empty for keys that belong to no team, and the
    cost centre is for teams that have none."""

    cost_centre: str
    team: str
    model: str
    requests: int
    input_tokens: int
    output_tokens: int
    cost_pico: int


@dataclass(frozen=True, slots=True)
class CostCentre:
    name: str
    lines: Sequence[Line]

    @property
    def cost_pico(self) -> int:
        return sum(line.cost_pico for line in self.lines)

    @property
    def requests(self) -> int:
        return sum(line.requests for line in self.lines)


def of_month(tenant: Tenant, month: Month) -> list[CostCentre]:
    """By name, what has none last; within it by team, the dearest model first."""
    teams: dict[int | None, Team] = {team.pk: team for team in Team.objects.filter(tenant=tenant)}
    found = (
        UsageDay.objects.filter(tenant=tenant, day__gte=month.first, day__lt=month.following.first)
        .values("team_id", "model")
        .annotate(
            request_count=Sum("requests"),
            input=Sum("input_tokens"),
            output=Sum("output_tokens"),
            cost=Sum("cost_pico"),
        )
    )
    centres: dict[str, list[Line]] = {}
    for row in found:
        team = teams.get(row["team_id"])
        line = Line(
            cost_centre=team.cost_centre if team else "",
            team=team.name if team else "",
            model=row["model"],
            requests=int(row["request_count"]),
            input_tokens=int(row["input"]),
            output_tokens=int(row["output"]),
            cost_pico=int(row["cost"]),
        )
        centres.setdefault(line.cost_centre, []).append(line)
    return [
        CostCentre(name, sorted(lines, key=_place))
        for name, lines in sorted(centres.items(), key=lambda item: (not item[0], item[0]))
    ]


def _place(line: Line) -> tuple[bool, str, int, str]:
    return not line.team, line.team, -line.cost_pico, line.model
