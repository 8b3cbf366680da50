"""Loads the services for the gateway's tests; the workers' tests run in a venv without Django."""

from importlib.util import find_spec

pytest_plugins = ["tests.services"] if find_spec("django") else []
