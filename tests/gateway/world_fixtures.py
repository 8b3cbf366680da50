"""The data plane's world for the modules that ask for it; see tests/gateway/world.py."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from tests.gateway.world import DATA_PLANE, World, world
from tests.services import Services


@pytest.fixture(scope="module")
def committed(django_db_blocker: Any) -> Iterator[None]:
    """A migrated database without a transaction around each test; emptied in the end."""
    with django_db_blocker.unblock():
        call_command("migrate", verbosity=0)
        try:
            yield
        finally:
            call_command("flush", interactive=False, verbosity=0)
            connection.close()
            connection.close_pool()


@pytest.fixture(scope="module")
def the_world(
    request: pytest.FixtureRequest,
    committed: None,
    services: Services,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """The module's `catalogue(upstream)` makes the offers, its LIMITS set the process' limits, and
    its APPLICATION may stand around the data plane's own."""
    folder: Path = tmp_path_factory.mktemp("plane")
    limits = getattr(request.module, "LIMITS", {})
    application = getattr(request.module, "APPLICATION", DATA_PLANE)
    catalogue = request.module.catalogue
    with world(services.redis.url, folder, catalogue, limits, application) as made:
        yield made
