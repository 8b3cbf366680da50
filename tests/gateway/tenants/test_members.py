"""People of a tenant: invited once, changed by whom it may be, and never without an owner."""

import re
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from billing.models import AuditEntry
from gateway.kinds import Role
from gateway.models import ApiKey, Invitation, Member
from gateway.tenants import keys, members
from gateway.tenants.members import MemberRefused
from tests.people import Person


def invited(client: Client, **asked: Any) -> str:
    """The path of a new invitation's link."""
    answer = client.post(
        "/members/invite/", {"email": "dora@example.org", "role": "developer", **asked}
    )
    assert answer.status_code == 201, answer.content.decode()
    found = re.search(r"/join/[\w-]+/", answer.content.decode())
    assert found is not None
    return found[0]


@pytest.fixture
def owner(client: Client, alice: Person, redis_client: object) -> Client:
    client.force_login(alice.user)
    return client


def test_a_newcomer_makes_an_account_and_joins_once(owner: Client, alice: Person) -> None:
    # given
    path = invited(owner, team=alice.team.pk)
    newcomer = Client()
    account = {"username": "dora", "password": "a long enough secret"}
    # when
    assert newcomer.get(path).status_code == 200
    assert newcomer.post(path, account).status_code == 302
    # then
    joined = Member.objects.get(user__username="dora")
    assert (joined.tenant, joined.role, joined.team) == (alice.tenant, "developer", alice.team)
    assert newcomer.get("/members/").status_code == 200
    assert Client().post(path, {**account, "username": "eve"}).status_code == 404
    assert not User.objects.filter(username="eve").exists()
    actions = AuditEntry.objects.order_by("pk").values_list("action", "actor")
    assert list(actions) == [("member.invite", "alice"), ("member.join", "dora")]


def test_somebody_with_an_account_joins_with_it(owner: Client, charlie: Person) -> None:
    # given
    path = invited(owner)
    client = Client()
    client.force_login(charlie.user)
    # when
    client.post(path)
    # then
    assert Member.objects.filter(user=charlie.user).count() == 2


@pytest.mark.parametrize(
    "account",
    [
        {"username": "dora", "password": "short"},
        {"username": "dora", "password": "password"},
        {"username": "a b", "password": "a long enough secret"},
        {"username": "alice", "password": "a long enough secret"},
        {},
    ],
)
def test_a_bad_account_is_refused_and_the_invitation_stays(
    account: dict[str, str], owner: Client
) -> None:
    # given
    path = invited(owner)
    before = User.objects.count()
    # when
    answer = Client().post(path, account)
    # then
    assert answer.status_code == 200
    assert (User.objects.count(), Member.objects.count()) == (before, 1)
    assert Client().get(path).status_code == 200


def test_inviting_again_or_withdrawing_ends_the_old_link(owner: Client) -> None:
    # given
    first, second = invited(owner), invited(owner)
    assert (Client().get(first).status_code, Client().get(second).status_code) == (404, 200)
    # when
    owner.post(f"/invitations/{Invitation.objects.get().pk}/withdraw/")
    # then
    assert Client().get(second).status_code == 404


def test_the_token_is_kept_nowhere(owner: Client) -> None:
    path = invited(owner)
    token = path.split("/")[2]
    assert bytes(Invitation.objects.get().token_hash) == members.hash_of(token)
    assert token not in owner.get("/members/").content.decode()


def test_the_last_owner_stays(alice: Person, bob: Person) -> None:
    facts: dict[str, Any] = {"tenant": alice.tenant, "by": "alice", "now": timezone.now()}
    with pytest.raises(MemberRefused, match="last owner"):
        members.remove(**facts, by_role=Role.OWNER, member_id=alice.member.pk)
    with pytest.raises(MemberRefused, match="last owner"):
        members.change(
            **facts, by_role=Role.OWNER, member_id=alice.member.pk, role="viewer", team=None
        )
    # when there is another one
    members.change(**facts, by_role=Role.OWNER, member_id=bob.member.pk, role="owner", team=None)
    members.remove(**facts, by_role=Role.OWNER, member_id=alice.member.pk)
    # then
    assert list(Member.objects.values_list("user__username", "role")) == [("bob", "owner")]


def test_an_admin_makes_no_owner_and_a_developer_nobody(
    client: Client, alice: Person, bob: Person, redis_client: object
) -> None:
    # given
    client.force_login(bob.user)
    asked = {"email": "dora@example.org", "role": "viewer"}
    assert client.post("/members/invite/", asked).status_code == 403
    assert client.post(f"/members/{alice.member.pk}/remove/").status_code == 403
    Member.objects.filter(pk=bob.member.pk).update(role=Role.ADMIN)
    # then
    assert client.post("/members/invite/", {**asked, "role": "owner"}).status_code == 422
    client.post(f"/members/{bob.member.pk}/change/", {"role": "owner", "team": ""})
    client.post(f"/members/{alice.member.pk}/change/", {"role": "viewer", "team": ""})
    client.post(f"/members/{alice.member.pk}/remove/")
    roles = dict(Member.objects.values_list("user__username", "role"))
    assert roles == {"alice": "owner", "bob": "admin"}


def test_charlie_reaches_no_member_and_no_invitation_of_alice(
    owner: Client, alice: Person, charlie: Person
) -> None:
    # given
    invited(owner)
    client = Client()
    client.force_login(charlie.user)
    # when
    client.post(f"/members/{alice.member.pk}/remove/")
    client.post(f"/members/{alice.member.pk}/change/", {"role": "viewer", "team": ""})
    client.post(f"/invitations/{Invitation.objects.get().pk}/withdraw/")
    answer = client.post(
        "/members/invite/", {"email": "x@example.org", "role": "viewer", "team": alice.team.pk}
    )
    # then
    assert answer.status_code == 422
    assert Member.objects.get(pk=alice.member.pk).role == Role.OWNER
    assert Invitation.objects.count() == 1


# --- keys of people who left -------------------------------------------------------------------


def key_by(person: Person, who: str | ApiKey, **terms: Any) -> keys.IssuedKey:
    fields = {"tenant": person.tenant, "name": f"of {who}", "created_by": who, **terms}
    return keys.issue(**fields, now=timezone.now())


@pytest.fixture
def left(alice: Person, bob: Person, client: Client, redis_client: redis.Redis) -> list[ApiKey]:
    """Bob made a key that made another, and was removed; Alice's own key stays hers."""
    made = key_by(alice, "bob", scopes=keys.SCOPES).key
    heir = key_by(alice, made).key
    key_by(alice, "alice")
    over = key_by(alice, "bob").key
    ApiKey.objects.filter(pk=over.pk).update(expires_at=timezone.now() - timedelta(days=1))
    client.force_login(alice.user)
    assert client.post(f"/members/{bob.member.pk}/remove/").status_code == 302
    return [made, heir]


def test_the_page_says_which_keys_of_removed_people_go_on(
    left: list[ApiKey], client: Client
) -> None:
    page = client.get("/members/")

    assert sorted(key.pk for key in page.context["keys_left"]) == [key.pk for key in left]
    assert "Keys of people who left" in page.text


def test_keys_of_removed_people_are_revoked_from_the_page(
    left: list[ApiKey], alice: Person, client: Client
) -> None:
    # given: one that is named, and one that is nobody's who left
    own = ApiKey.objects.get(created_by="alice")

    # when
    client.post("/members/left/revoke/", {"key": [left[0].pk, own.pk, "x"]})

    # then
    revoked = ApiKey.objects.exclude(revoked_at=None)
    assert list(revoked) == [left[0]]
    assert [key.pk for key in client.get("/members/").context["keys_left"]] == [left[1].pk]


def test_a_member_who_came_back_has_not_left(
    left: list[ApiKey], alice: Person, bob: Person, client: Client
) -> None:
    Member.objects.create(user=bob.user, tenant=alice.tenant, role="developer")

    assert client.get("/members/").context["keys_left"] == []


def test_a_developer_revokes_nobodys_left_keys(
    left: list[ApiKey], alice: Person, client: Client
) -> None:
    Member.objects.filter(pk=alice.member.pk).update(role="developer")

    answer = client.post("/members/left/revoke/", {"key": [key.pk for key in left]})

    assert answer.status_code == 403
    assert not ApiKey.objects.exclude(revoked_at=None).exists()


def test_the_api_ends_a_membership_and_revokes_its_keys(
    alice: Person, bob: Person, client: Client, redis_client: redis.Redis
) -> None:
    # given
    made = key_by(alice, "bob", scopes=keys.SCOPES).key
    heir = key_by(alice, made).key
    own = key_by(alice, "alice").key
    client.force_login(alice.user)
    path = f"/api/v1/tenants/aurora/members/{bob.member.pk}/"

    # when
    answer = client.delete(f"{path}?revoke_keys=true")

    # then
    assert answer.status_code == 204
    assert set(ApiKey.objects.exclude(revoked_at=None)) == {made, heir}
    assert ApiKey.objects.get(pk=own.pk).revoked_at is None
