"""Each list of kinds stands once: whatever names its members takes them from there."""

import ast
from collections.abc import Iterator
from enum import Enum
from typing import Any, get_args

import msgspec
import pytest
from django.apps import apps

from billing import basis, registers
from billing.admin.price_form import RatesForm
from billing.kinds import HoldMode, ServiceTier, Window
from billing.models import Quota, Tenant
from gateway.api.members import MemberSerializer
from gateway.api.shapes.serializers import NewKeySerializer, PolicySerializer, QuotaSerializer
from gateway.api.tenant_settings import SettingsSerializer
from gateway.console.forms import KeyForm, PolicyForm, QuotaForm
from gateway.console.overview import repricing
from gateway.console.views.members import MemberForm
from gateway.dataplane.surfaces import request_body
from gateway.declared.document import Document
from gateway.kinds import SCOPES, KeyScope, Role
from gateway.models import Member, RoutingPolicy
from gateway.routing import policies
from gateway.routing.policies import PolicyKind, Scoring
from gateway.sign_on import identities
from gateway.tenants import roles
from providers.boards.windows import WINDOWS
from providers.chat import Dialect, WireName
from providers.market.price_schedule import CONTEXTS
from providers.models import Offer, Provider
from providers.wires import registry, service_tiers
from tests.factories import offer_view
from tests.test_tidy import parsed

MOMENT_MS = 1_795_000_000_000


def values(kinds: type[Enum]) -> list[Any]:
    return [member.value for member in kinds]


def column(model: Any, name: str) -> list[Any]:
    return [value for value, _ in model._meta.get_field(name).choices]


def field(form: Any, name: str) -> list[Any]:
    return [value for value, _ in form.base_fields[name].choices]


def api(serializer: Any, name: str) -> list[Any]:
    asked = serializer().fields[name]
    return list(getattr(asked, "child", asked).choices)


def declared(part: str, name: str) -> list[Any]:
    """The words that a declared file may say."""
    schema = msgspec.json.schema(Document)["$defs"]
    asked = schema[part]["properties"][name]
    asked = asked.get("items", asked)
    named = asked["$ref"] if "$ref" in asked else asked["anyOf"][0]["$ref"]
    return list(schema[named.rsplit("/", 1)[1]]["enum"])


def test_a_policy_is_named_in_one_place() -> None:
    kinds = values(PolicyKind)

    assert list(policies.EXPLAINED) == kinds
    assert column(RoutingPolicy, "kind") == kinds
    assert field(PolicyForm, "kind") == kinds
    assert api(PolicySerializer, "kind") == kinds
    assert sorted(declared("DeclaredPolicy", "kind")) == sorted(kinds)


@pytest.mark.parametrize("kind", values(PolicyKind))
def test_every_policy_scores_and_is_repriced(kind: str) -> None:
    offer = offer_view()
    scoring = Scoring(output_expected=100, speeds={}, pinned={offer.sku: 0})

    score, why = policies.score(kind, offer, 1_000, scoring)

    assert isinstance(score, float)
    assert why
    assert repricing.effect([], kind=kind).cost_pico == 0


def test_a_window_is_named_in_one_place() -> None:
    windows = values(Window)

    assert column(Quota, "window") == windows
    assert field(QuotaForm, "window") == windows
    assert api(QuotaSerializer, "window") == windows
    assert sorted(declared("DeclaredQuota", "window")) == sorted(windows)
    for window in set(windows) - {registers.SESSION}:
        assert registers.span_of(window, MOMENT_MS).bucket


def test_a_mode_of_holds_is_named_in_one_place() -> None:
    assert column(Tenant, "hold_mode") == values(HoldMode)
    assert api(SettingsSerializer, "hold_mode") == values(HoldMode)


def test_a_service_tier_is_named_in_one_place() -> None:
    tiers = values(ServiceTier)
    columns = [
        (model, column)
        for model in apps.get_models()
        for column in model._meta.concrete_fields
        if column.name == "service_tier" and column.choices
    ]

    assert len(columns) == 3
    for _, found in columns:
        assert [value for value, _ in found.choices or []] == tiers
    assert field(RatesForm, "service_tier") == tiers
    assert list(CONTEXTS) == tiers
    assert list(service_tiers.BILLABLE) == tiers
    words = [tier.word for tier in ServiceTier]
    assert [service_tiers.served(word, asked=-2) for word in words] == tiers
    assert [request_body.tier(word) for word in words] == tiers


def test_a_scope_of_keys_is_named_in_one_place() -> None:
    scopes = values(KeyScope)

    assert list(SCOPES) == scopes
    assert field(KeyForm, "scopes") == scopes
    assert api(NewKeySerializer, "scopes") == scopes
    assert sorted(declared("DeclaredKey", "scopes")) == sorted(scopes)


def test_a_role_is_named_in_one_place() -> None:
    found = values(Role)

    assert column(Member, "role") == found
    assert field(MemberForm, "role") == found
    assert api(MemberSerializer, "role") == found
    assert sorted(declared("DeclaredGroup", "role")) == sorted(found)
    assert sorted(identities.RANK) == sorted(found)
    assert set().union(*roles.ALLOWED.values()) == set(found)


def test_a_wire_is_named_in_one_place_and_so_is_a_dialect() -> None:
    wires, dialects = set(get_args(WireName)), set(get_args(Dialect))

    assert {registry.wire_for(wire).name for wire in wires} == wires
    assert {registry.wire_for(wire).dialect for wire in wires} - {None} <= dialects
    assert set(Provider.Wire.values) - {Provider.Wire.NONE} == wires


def test_every_basis_of_a_count_has_its_words() -> None:
    assert set(basis.BEST_FIRST) <= set(basis.WORDS)
    assert set(basis.CONFIDENCE) == set(basis.BEST_FIRST) - {basis.NONE}


LISTS = [
    ("gateway/routing/policies.py", values(PolicyKind)),
    ("billing/kinds.py", values(Window)),
    ("billing/kinds.py", [tier.word for tier in ServiceTier]),
    ("gateway/kinds.py", values(Role)),
    ("providers/models/catalogue.py", values(Offer.State)),
    ("providers/boards/windows.py", list(WINDOWS)),
    ("billing/basis.py", list(basis.BEST_FIRST)),
]


@pytest.mark.parametrize(("home", "words_listed"), LISTS)
def test_no_list_is_written_a_second_time(home: str, words_listed: list[str]) -> None:
    """Not as literals in a display, the keys of a mapping or a type: their names are the list's."""
    wanted, found = set(words_listed), []
    for path, tree, _ in parsed("billing", "gateway", "providers"):
        if path != home:
            found += [f"{path}:{line}" for line, words in _displays(tree) if wanted <= words]
    assert found == []


def _displays(tree: ast.Module) -> Iterator[tuple[int, set[Any]]]:
    """Every group of literals that is written out, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
                words = [word for part in parts for word in _first(part)]
            case ast.Dict(keys=keys):
                words = [word for key in keys if key is not None for word in _first(key)]
            case ast.ClassDef(body=body):
                words = [
                    word
                    for line in body
                    if isinstance(line, ast.Assign)
                    for word in _first(line.value)
                ]
            case _:
                continue
        yield node.lineno, set(words)


def _first(node: ast.expr) -> list[Any]:
    """A literal, or the first of a pair: choices are pairs of a value and its label."""
    if isinstance(node, ast.Tuple) and node.elts:
        node = node.elts[0]
    return [node.value] if isinstance(node, ast.Constant) else []
