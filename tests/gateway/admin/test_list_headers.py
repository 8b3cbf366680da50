"""Lists of the admin console make their headers once, however many rows they show."""

import pytest
from django.contrib.admin.views.main import ChangeList
from django.test import Client
from django.urls import reverse

from billing.models import Tenant

pytestmark = pytest.mark.django_db


def test_a_list_makes_its_headers_once_for_all_rows(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    for number in range(12):
        Tenant.objects.create(slug=f"many-{number}", name=f"Many {number}")
    asked: list[object] = []
    ordered = ChangeList.get_ordering_field_columns

    def counted(page: ChangeList) -> object:
        asked.append(page)
        return ordered(page)

    monkeypatch.setattr(ChangeList, "get_ordering_field_columns", counted)

    # when
    page = admin_client.get(reverse("admin:billing_tenant_changelist")).content.decode()

    # then: once for the headers; each row still names its columns
    assert len(asked) == 1
    assert page.count('data-label="slug"') >= 12
