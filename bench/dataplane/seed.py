"""Fills the bench's own database, and prints what the bench must know as JSON.

    python -m bench.dataplane.seed UPSTREAM_PORT

Migrates, seeds the catalogue of an ordinary installation (the snapshot holds all of it), rebuilds
the registers of an empty Redis, then runs `bench.dataplane.tenant`.
"""

import json
import sys
from importlib import import_module

import django
from django.core.management import call_command

from gateway import env


def main() -> None:
    env.apply_defaults({"DJANGO_SETTINGS_MODULE": "gateway.settings"})
    django.setup()
    call_command("migrate", "--noinput", verbosity=0)
    call_command("seed_catalogue", stdout=sys.stderr)
    call_command("rebuild_registers", stdout=sys.stderr)
    # It imports models, which only works once Django is set up.
    tenant = import_module("bench.dataplane.tenant")
    sys.stdout.write(json.dumps(tenant.make(upstream_port=int(sys.argv[1]))) + "\n")


if __name__ == "__main__":
    main()
