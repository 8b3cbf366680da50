"""Prints `.env.example`; a test keeps the file in step with the settings."""

import sys
from importlib import import_module

from gateway import env


def main() -> None:
    import_module("gateway.settings")  # Reading the settings is what declares the variables.
    sys.stdout.write(env.as_example_file())


if __name__ == "__main__":
    main()
