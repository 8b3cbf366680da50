"""Whatever waits, queues or remembers has a limit: CONTRIBUTING.md's rule, read off the source.

BOUNDED is the list of what is bounded elsewhere than where it is made, and by what.
"""

import ast
from collections.abc import Iterator
from typing import Final

import pytest

from tests.test_tidy import PRODUCT, parsed

# (path, name it is kept under) -> the constant or method that bounds it, in the same file
BOUNDED: Final[dict[tuple[str, str], str]] = {
    ("gateway/dataplane/redis/pipe.py", "_inflight"): "_pending_max",
    ("gateway/dataplane/redis/pipe.py", "_waiting"): "_pending_max",
    ("billing/samples.py", "_samples"): "SAMPLES_MAX",
    ("billing/drain/redis_thread.py", "_sent"): "It is not long: whoever waits",
    ("billing/drain/read_ahead.py", "_waiting"): "AHEAD",
    ("billing/drain/read_ahead.py", "coming"): "AHEAD",
    ("providers/outbound/http1.py", "_idle"): "IDLE_MAX",
    ("workers/engine/draft_audit.py", "_cases"): "CASES_MAX",
}
# What is called -> the argument that bounds how long, or how much.
NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "subprocess.run": ("timeout",),
    "subprocess.check_output": ("timeout",),
    "subprocess.check_call": ("timeout",),
    "subprocess.call": ("timeout",),
    "urllib.request.urlopen": ("timeout",),
    "urlopen": ("timeout",),
    "socket.create_connection": ("timeout",),
    "psycopg.connect": ("connect_timeout",),
    "psycopg.Connection.connect": ("connect_timeout",),
    "redis.Redis.from_url": ("socket_timeout",),
    "redis.Redis": ("socket_timeout",),
    "httpx.Client": ("timeout",),
    "httpx.AsyncClient": ("timeout",),
    "httpx.get": ("timeout",),
    "httpx.post": ("timeout",),
    "ThreadPoolExecutor": ("max_workers",),
    "ProcessPoolExecutor": ("max_workers",),
    "queue.Queue": ("maxsize",),
    "queue.SimpleQueue": ("never",),
    "asyncio.Queue": ("maxsize",),
    "multiprocessing.Queue": ("maxsize",),
}
# `cache` on a function of text or numbers: how many there can be.
FEW: Final = {("workers/speculation/matching.py", "_kinds"): "names of proposers"}
# These take their limit first, without its name.
FIRST: Final = frozenset({"ThreadPoolExecutor", "queue.Queue", "asyncio.Queue"})
WAITS: Final = frozenset({"wait", "communicate", "acquire", "result"})


def calls() -> Iterator[tuple[str, ast.Call, str]]:
    for path, tree, _ in parsed(*PRODUCT):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield path, node, ast.unparse(node.func)


def has(call: ast.Call, name: str, names: tuple[str, ...]) -> bool:
    given = {keyword.arg for keyword in call.keywords}
    return bool(given & {*names, None}) or (name in FIRST and bool(call.args))


def test_whatever_is_asked_of_others_ends() -> None:
    """A process, a server, a pool of threads: each with the argument that bounds it."""
    endless = [
        f"{path}:{call.lineno}: {name} without {' or '.join(NEEDS[name])}"
        for path, call, name in calls()
        if name in NEEDS and not has(call, name, NEEDS[name])
    ]
    assert endless == []


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_a_call_without_its_limit_would_be_found(name: str) -> None:
    (bare,) = [n for n in ast.walk(ast.parse(f"{name}()")) if isinstance(n, ast.Call)]
    argument = NEEDS[name][0]
    (bound,) = [n for n in ast.walk(ast.parse(f"{name}({argument}=1)")) if isinstance(n, ast.Call)]

    assert not has(bare, name, NEEDS[name])
    assert has(bound, name, NEEDS[name])


def targets(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Assign):
        found: list[ast.expr] = node.targets
    elif isinstance(node, ast.AnnAssign):
        found = [node.target]
    else:
        return []
    return [each.attr if isinstance(each, ast.Attribute) else ast.unparse(each) for each in found]


def unbounded_deques() -> Iterator[tuple[str, str]]:
    for path, tree, _ in parsed(*PRODUCT):
        for node in ast.walk(tree):
            value = getattr(node, "value", None)
            if not isinstance(value, ast.Call) or ast.unparse(value.func) != "deque":
                continue
            if not any(keyword.arg == "maxlen" for keyword in value.keywords):
                yield from ((path, name) for name in targets(node))


def test_every_queue_in_memory_says_what_bounds_it() -> None:
    assert sorted(unbounded_deques()) == sorted(BOUNDED)


@pytest.mark.parametrize(("path", "name"), sorted(BOUNDED))
def test_what_bounds_a_queue_is_there(path: str, name: str) -> None:
    (text,) = [text for each, _, text in parsed(*PRODUCT) if each == path]
    assert BOUNDED[path, name] in text


def test_what_is_remembered_for_arguments_is_forgotten_again() -> None:
    """`cache` grows with every argument that anybody sends: `lru_cache(maxsize=…)` does not."""
    endless = [
        f"{path}:{node.lineno}: {node.name}"
        for path, tree, _ in parsed(*PRODUCT)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and any(is_endless(decorator) for decorator in node.decorator_list)
        and takes_what_comes_in(node)
        and (path, node.name) not in FEW
    ]
    assert endless == []


def is_endless(decorator: ast.expr) -> bool:
    said = ast.unparse(decorator)
    return said in ("cache", "functools.cache", "lru_cache") or "maxsize=None" in said


def takes_what_comes_in(node: ast.FunctionDef) -> bool:
    """Text, bytes or numbers; a type, a model or a path is one of a few."""
    said = [ast.unparse(arg.annotation) for arg in node.args.args if arg.annotation is not None]
    return any(word in ("str", "bytes", "int", "float") for word in said)


def test_nobody_waits_for_a_lock_or_a_result_for_ever() -> None:
    """`.wait()`, `.acquire()`, `.result()` bare are allowed where the other side is bounded: the
    file then says so in the words above it."""
    bare = [
        f"{path}:{call.lineno}: {name}()"
        for path, call, name in calls()
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in WAITS
        and not call.args
        and not call.keywords
        and (path, call.func.attr) not in ENDS_BY_ITSELF
    ]
    assert bare == []


ENDS_BY_ITSELF: Final[dict[tuple[str, str], str]] = {
    ("billing/drain/redis_thread.py", "result"): "Redis' own time limit ends each of them",
    ("billing/drain/read_ahead.py", "result"): "a read that Redis' own time limit ends",
    ("billing/drain/metering.py", "wait"): "what was sent to Redis, bounded by its time limit",
    ("gateway/runtime/child.py", "wait"): "it has been killed",
    ("gateway/dataplane/inbound/client.py", "result"): "it is done",
    ("gateway/dataplane/settling/leases.py", "result"): "it is done",
    ("gateway/demo/traffic.py", "result"): "the traffic ends by its own time",
    ("workers/server/recent_calls.py", "wait"): "inside wait_for",
    ("workers/server/bridge.py", "wait"): "an engine that loads, or a process that ends",
}


def test_the_lists_name_only_what_is_there() -> None:
    there = {
        (path, call.func.attr) for path, call, _ in calls() if isinstance(call.func, ast.Attribute)
    }
    assert sorted(set(ENDS_BY_ITSELF) - there) == []


def retries() -> Iterator[tuple[str, ast.While]]:
    """Loops for ever around something that is tried again: they catch, and go on."""
    for path, tree, _ in parsed(*PRODUCT):
        for node in ast.walk(tree):
            if not isinstance(node, ast.While) or ast.unparse(node.test) not in ("True", "1"):
                continue
            caught = [each for each in ast.walk(node) if isinstance(each, ast.ExceptHandler)]
            if any(ends_in_another_try(handler) for handler in caught):
                yield path, node


def ends_in_another_try(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Continue | ast.Pass)


def waits_between(loop: ast.While) -> bool:
    """Whether it sleeps, waits or polls before it tries again."""
    said = ast.unparse(loop)
    return any(word in said for word in ("sleep", ".wait(", "wait_for", "_rest", "backoff", "poll"))


def test_what_is_tried_for_ever_is_tried_at_a_measured_pace() -> None:
    hot = [f"{path}:{loop.lineno}" for path, loop in retries() if not waits_between(loop)]
    assert hot == []
