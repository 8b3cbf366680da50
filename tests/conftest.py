"""Loads the services for the gateway's tests; the workers' tests run in a venv without Django."""

from importlib.util import find_spec

from hypothesis import HealthCheck, settings

# A busy machine is no defect of a test: neither deadlines nor slow generation fail one.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

pytest_plugins = ["tests.services"] if find_spec("django") else []
