"""The release that this is, once: pages, `/health`, headers, images and the engine say the same."""

from typing import Final

VERSION: Final = "0.2.0"
HEADER: Final = "x-tokenhouse-version"
