"""`make down`: asks a running supervisor to stop everything, and waits until it has."""

import os
import signal
import sys
import time
from typing import Final

from gateway.runtime import data_folders, running_children

WAIT_S: Final = 120.0


def main() -> None:
    lock = running_children.Lock(data_folders.of_clone())
    if lock.is_free():
        sys.stdout.write("Nothing is running here.\n")
        return
    pid = lock.holder()
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + WAIT_S
    while not lock.is_free():
        if time.monotonic() > deadline:
            sys.exit(f"supervisor {pid} has not stopped after {WAIT_S:.0f} s; see its logs")
        time.sleep(0.1)
    sys.stdout.write("Stopped.\n")


if __name__ == "__main__":
    main()
