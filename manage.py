"""Django's command line; beside a running `make up` it finds the embedded services by itself."""

import sys

from django.core.management import execute_from_command_line

from gateway import env
from gateway.runtime import saved_environment


def main() -> None:
    env.apply_defaults({"DJANGO_SETTINGS_MODULE": "gateway.settings"})
    env.apply_defaults(saved_environment.environment_of_clone())
    try:
        execute_from_command_line(sys.argv)
    except env.EnvironmentRefused as problem:
        sys.exit(f"{problem}\n(`make up` makes and keeps these settings by itself.)")


if __name__ == "__main__":
    main()
