"""Why Redis refused a command: because of its own state, or of what was asked. Pure.

The one table of it, for everybody who talks to Redis. A refusal by its state says nothing about
the command: the same one is taken once the cause is gone. What a script was told by a command of
its own comes wrapped in an error of the script (Redis 6), or with the script's name behind it
(Redis 7), and means the same.
"""

import re
from typing import Final

# First word of an error reply → what is the matter with the server.
OF_ITS_STATE: Final = {
    "MISCONF": "it cannot write to its disk",
    "OOM": "it is at its memory limit",
    "LOADING": "it is loading its data",
    "READONLY": "it is a replica",
    "MASTERDOWN": "it is a replica without its primary",
    "NOREPLICAS": "too few of its replicas follow",
    "BUSY": "it is held up by a script",
    "TRYAGAIN": "its keys are being moved",
    "CLUSTERDOWN": "its cluster is down",
    "MOVED": "its keys were moved",
    "ASK": "its keys are being moved",
    "NOAUTH": "it wants a password",
    "WRONGPASS": "it takes our password no longer",
    "NOPERM": "our user may not do this",
}
# The same, where Redis has no word of its own for it.
BY_PHRASE: Final = {
    "max number of clients reached": "it takes no more clients",
    "Script killed by user": "somebody has ended the script",
    "not enough memory": "its scripts have no memory left",
}
NOT_LOADED: Final = "NOSCRIPT"

# "ERR Error running script (call to f_…): @user_script:7: @user_script: 7: -OOM command not …"
_WRAPPED: Final = re.compile(r"(?:@?user_script: ?\d+: )+-?([A-Z]+) ")
_FIRST: Final = re.compile(r"-?([A-Z]+)\b")


def code_of(reply: str) -> str:
    """The word under which Redis refused, out of its wrapping."""
    wrapped = _WRAPPED.search(reply)
    first = _FIRST.match(reply)
    if wrapped is not None and (first is None or first[1] == "ERR"):
        return wrapped[1]
    return first[1] if first else ""


def state_of(reply: str) -> str:
    """What is the matter with Redis itself; empty where it refused what was asked."""
    known = OF_ITS_STATE.get(code_of(reply))
    if known is not None:
        return known
    return next((why for phrase, why in BY_PHRASE.items() if phrase in reply), "")


def is_not_loaded(reply: str) -> bool:
    """Whether the script is not known there; loaded again, the call is taken."""
    return code_of(reply) == NOT_LOADED
