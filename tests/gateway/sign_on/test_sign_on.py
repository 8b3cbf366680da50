"""Single sign-on against a real OpenID Connect provider on loopback, groups and all."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from django.contrib.auth.models import User
from django.test import Client

from billing.models import AuditEntry
from gateway.models import GroupMapping, Identity, Member
from tests.patience import PATIENCE_S, eventually
from tests.people import Person
from tests.ports import free_port

ISSUER_HOST = "http://localhost"


@dataclass
class IdentityProvider:
    url: str

    def knows(self, subject: str, **claims: Any) -> None:
        """Make or change a person there."""
        answer = requests.put(f"{self.url}/users/{subject}", json=claims, timeout=PATIENCE_S)
        answer.raise_for_status()

    def vouch(self, authorize_url: str, subject: str) -> str:
        """Sign in there as somebody; the address that the browser is sent back to."""
        answer = requests.post(
            authorize_url, data={"sub": subject}, allow_redirects=False, timeout=PATIENCE_S
        )
        assert answer.status_code in (302, 303), answer.text
        return answer.headers["Location"]


@pytest.fixture(scope="module")
def running() -> Iterator[IdentityProvider]:
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    provider = IdentityProvider(f"http://localhost:{port}")
    try:
        eventually(lambda: _answers(provider.url))
        yield provider
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_S)


def _answers(url: str) -> bool:
    try:
        requests.get(f"{url}/.well-known/openid-configuration", timeout=PATIENCE_S)
    except requests.RequestException:
        return False
    return True


@pytest.fixture
def provider(
    running: IdentityProvider, settings: Any, redis_client: object, transactional_db: None
) -> IdentityProvider:
    settings.OIDC_ISSUER = running.url
    settings.OIDC_CLIENT_ID = "tokenhouse"
    settings.OIDC_CLIENT_SECRET = "secret of a test"
    return running


def sign_in(provider: IdentityProvider, subject: str, client: Client | None = None) -> Any:
    """The whole way of a browser; the answer to coming back."""
    client = client or Client()
    out = client.get("/sign-on/?next=/keys/")
    assert out.status_code == 302, out.content
    asked = parse_qs(urlsplit(out["Location"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert {"state", "nonce", "code_challenge"} <= set(asked)
    back = urlsplit(provider.vouch(out["Location"], subject))
    return client.get(f"{back.path}?{back.query}")


def roles(name: str) -> dict[str, tuple[str, str | None]]:
    found = Member.objects.select_related("tenant", "team").filter(user__username=name)
    return {m.tenant.slug: (m.role, m.team.slug if m.team else None) for m in found}


def test_a_person_comes_in_by_the_groups_and_goes_with_them(
    provider: IdentityProvider, alice: Person, charlie: Person
) -> None:
    # given
    for group, tenant, team, role in (
        ("ml", alice.tenant, alice.team, "developer"),
        ("ml-leads", alice.tenant, None, "admin"),
        ("finance", charlie.tenant, None, "viewer"),
    ):
        GroupMapping.objects.create(group=group, tenant=tenant, team=team, role=role)
    provider.knows("u-1", preferred_username="dora", email="d@x.org", groups=["ml", "finance"])
    # when, then
    assert sign_in(provider, "u-1")["Location"] == "/keys/"
    assert roles("dora") == {"aurora": ("developer", "main"), "cassini": ("viewer", None)}
    provider.knows("u-1", preferred_username="renamed", groups=["ml", "ml-leads"])
    sign_in(provider, "u-1")
    assert roles("dora") == {"aurora": ("admin", None)}
    provider.knows("u-1", groups=[])
    assert sign_in(provider, "u-1").status_code == 302
    assert roles("dora") == {}
    assert Identity.objects.count() == 1
    actions = AuditEntry.objects.order_by("pk").values_list("action", flat=True)
    assert list(actions).count("member.join") == 2
    assert {"member.change", "member.remove"} <= set(actions)


def test_the_address_of_somebody_else_makes_nobody_that_person(
    provider: IdentityProvider, alice: Person
) -> None:
    # given
    provider.knows("u-2", preferred_username="alice", email="alice@example.org", groups=[])
    # when
    sign_in(provider, "u-2")
    # then
    assert User.objects.get(identities__subject="u-2").username == "alice-2"
    assert roles("alice") == {"aurora": ("owner", "main")}
    assert not User.objects.get(username="alice-2").has_usable_password()


def test_a_membership_made_here_is_left_alone(provider: IdentityProvider, alice: Person) -> None:
    # given
    Identity.objects.create(user=alice.user, issuer=provider.url, subject="u-3")
    GroupMapping.objects.create(group="all", tenant=alice.tenant, role="viewer")
    provider.knows("u-3", groups=["all"])
    # when
    sign_in(provider, "u-3")
    provider.knows("u-3", groups=[])
    sign_in(provider, "u-3")
    # then
    assert roles("alice") == {"aurora": ("owner", "main")}


def test_the_last_owner_stays_whatever_the_groups_say(
    provider: IdentityProvider, alice: Person
) -> None:
    # given
    GroupMapping.objects.create(group="owners", tenant=alice.tenant, role="owner")
    provider.knows("u-4", preferred_username="olga", groups=["owners"])
    sign_in(provider, "u-4")
    Member.objects.filter(user=alice.user).delete()
    # when
    provider.knows("u-4", groups=[])
    sign_in(provider, "u-4")
    # then
    assert roles("olga") == {"aurora": ("owner", None)}


@pytest.mark.parametrize("groups", ["ml", {"ml": 1}, None, [1, None, {"a": 1}], ["x" * 9_999]])
def test_groups_of_any_shape_break_nothing(
    groups: Any, provider: IdentityProvider, alice: Person
) -> None:
    # given
    GroupMapping.objects.create(group="ml", tenant=alice.tenant, role="viewer")
    provider.knows("u-5", preferred_username="eve", groups=groups)
    # when
    sign_in(provider, "u-5")
    # then
    assert roles("eve") == ({"aurora": ("viewer", None)} if groups == "ml" else {})


def test_a_forged_way_back_signs_nobody_in(provider: IdentityProvider) -> None:
    # given
    provider.knows("u-6", preferred_username="mallory", groups=[])
    client = Client()
    out = client.get("/sign-on/")
    back = urlsplit(provider.vouch(out["Location"], "u-6"))
    code = parse_qs(back.query)["code"][0]
    state = parse_qs(back.query)["state"][0]
    # then: another browser, another state, no code, a refusal, the same code twice
    for who, query in (
        (Client(), back.query),
        (client, f"code={code}&state=other"),
        (client, f"state={state}"),
        (client, "error=access_denied&error_description=no"),
        (client, ""),
    ):
        answer = who.get(f"{back.path}?{query}")
        assert answer.status_code == 403
        assert "Traceback" not in answer.content.decode()
    assert not User.objects.filter(username="mallory").exists()


def test_a_closed_account_stays_closed(provider: IdentityProvider) -> None:
    # given
    provider.knows("u-7", preferred_username="frank", groups=[])
    sign_in(provider, "u-7")
    User.objects.filter(username="frank").update(is_active=False)
    # then
    assert sign_in(provider, "u-7").status_code == 403


def test_a_provider_that_is_away_is_told_plainly(provider: IdentityProvider, settings: Any) -> None:
    settings.OIDC_ISSUER = "http://127.0.0.1:9"
    answer = Client().get("/sign-on/")
    assert answer.status_code == 503
    assert "does not answer" in answer.content.decode()


def test_the_button_is_there_only_where_it_leads_somewhere(
    client: Client, settings: Any, db: None, redis_client: object
) -> None:
    assert "/sign-on/" not in client.get("/login/").content.decode()
    assert client.get("/sign-on/").status_code == 404
    settings.OIDC_ISSUER, settings.OIDC_CLIENT_ID = "https://id.example", "tokenhouse"
    shown = client.get("/login/?next=/keys/").content.decode()
    assert re.search(r'href="/sign-on/\?next=/keys/"', shown)
    assert json.dumps(settings.OIDC_NAME)[1:-1] in shown
