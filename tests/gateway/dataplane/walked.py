"""The data plane's application, which writes down the walk of each call, one at a time."""

import json
import os
from typing import Any, Final

from gateway.dataplane.app import app as plane
from tests.gateway.walks import walking, written_at

FOLDER: Final = os.environ["TOKENHOUSE_DATA_DIR"]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http" or scope["method"] != "POST":
        await plane(scope, receive, send)
        return
    with walking() as walk:
        await plane(scope, receive, send)
    written = written_at(FOLDER, scope["path"])
    being_written = written.with_suffix(".part")
    being_written.write_text(json.dumps(list(walk)))
    being_written.rename(written)
