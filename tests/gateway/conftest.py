"""Loads the data plane's fixtures once Django is set up: they import models."""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.import_plugin("tests.gateway.world_fixtures")
