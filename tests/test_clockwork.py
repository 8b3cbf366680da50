"""The periodic tasks, one by one: bounded, recorded, short, and expired with their period.

gateway/adding-a-task.md says what a task must hold; this reads it off the registry and the source.
"""

import ast
import zlib
from pathlib import Path
from typing import Final

import pytest
from celery.schedules import schedule

from gateway.celery import CLOCKWORK, app
from gateway.runtime.data_folders import CLONE
from tests.test_tidy import PRODUCT, FunctionNode, lines_of, parsed

TASKS: Final = ("billing/tasks.py", "providers/tasks.py", "gateway/tasks.py")
TASK_LINES_MAX: Final = 20
# What a task hands its work to, so that how it went is noted.
RECORDERS: Final = ("task_runs.recorded", "run_alone", "run_in_turn")
PAGE: Final = (CLONE / "gateway" / "adding-a-task.md").read_text(encoding="utf-8")
# From the hold's own promises: what may not wait behind anything else.
MONEY: Final = {
    "billing.tasks.drain_usage",
    "billing.tasks.expire_holds",
    "billing.tasks.push_credit",
}


def constants(tree: ast.Module) -> dict[str, object]:
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def functions() -> dict[str, FunctionNode]:
    """Every shared task of the three files, by the name it is sent under."""
    found: dict[str, FunctionNode] = {}
    for path, tree, _ in parsed(*PRODUCT):
        if path not in TASKS:
            continue
        named_by = constants(tree)
        for node in tree.body:
            if isinstance(node, FunctionNode):
                for decorator in node.decorator_list:
                    if isinstance(decorator, ast.Call):
                        named = {k.arg: k.value for k in decorator.keywords}["name"]
                        assert isinstance(named, ast.Name)
                        found[str(named_by[named.id])] = node
    return found


BY_NAME: Final = functions()


def test_every_task_is_wound_up_and_every_line_of_the_clockwork_is_a_task() -> None:
    assert sorted(BY_NAME) == sorted(CLOCKWORK)


@pytest.mark.parametrize("name", sorted(CLOCKWORK))
def test_a_message_expires_with_its_period(name: str) -> None:
    """A worker that was away does not replay the time it missed."""
    period_s, queue = CLOCKWORK[name]

    entry = app.conf.beat_schedule[name]

    assert entry["options"] == {"queue": queue, "expires": period_s}
    assert entry["schedule"] == schedule(run_every=period_s)
    assert entry["task"] == name
    assert app.conf.task_routes[name] == {"queue": queue}


@pytest.mark.parametrize("name", sorted(CLOCKWORK))
def test_a_task_is_a_few_lines_that_call_a_service(name: str) -> None:
    node = BY_NAME[name]

    assert lines_of(node) <= TASK_LINES_MAX
    assert node.args.args == [], "what a message carries can be old: a task asks"
    assert not [each for each in ast.walk(node) if isinstance(each, ast.Try)], "a service's"


@pytest.mark.parametrize("name", sorted(CLOCKWORK))
def test_how_a_task_went_is_noted_under_its_own_name(name: str) -> None:
    called = [each for each in ast.walk(BY_NAME[name]) if isinstance(each, ast.Call)]
    recorded = [each for each in called if ast.unparse(each.func) in RECORDERS]

    assert recorded, f"one of {', '.join(RECORDERS)}"
    first = {ast.unparse(each.args[0]) for each in recorded}
    path = name.rsplit(".", 1)[0].replace(".", "/") + ".py"
    tree = next(tree for each, tree, _ in parsed(*PRODUCT) if each == path)
    assert first == {key for key, value in constants(tree).items() if value == name}


def test_no_two_tasks_share_a_note_or_a_lock() -> None:
    """The lock of a task is a hash of its name."""
    locks = {zlib.crc32(name.encode()) for name in CLOCKWORK}
    assert len(locks) == len(CLOCKWORK)


@pytest.mark.parametrize("name", sorted(CLOCKWORK))
def test_time_is_read_once_and_handed_on(name: str) -> None:
    """A task's `now` is that of its record; a second reading could fall on another day."""
    read = [
        ast.unparse(each)
        for each in ast.walk(BY_NAME[name])
        if isinstance(each, ast.Call) and ast.unparse(each.func) in ("timezone.now", "time.time")
    ]
    assert read == []


def test_what_holds_and_the_ledger_wait_for_has_its_queue_to_itself() -> None:
    assert {name for name, (_, queue) in CLOCKWORK.items() if queue == "money"} == MONEY


def test_what_is_due_often_waits_behind_nothing_slow() -> None:
    """A task of the slow queue may take its whole time limit, and the next of it waits."""
    slow = {name: period_s for name, (period_s, queue) in CLOCKWORK.items() if queue == "slow"}
    often = {name for name, period_s in slow.items() if period_s < 30}
    assert often == set()


def test_a_run_is_ended_before_its_message_is_given_to_somebody_else() -> None:
    conf = app.conf
    assert conf.task_soft_time_limit < conf.task_time_limit
    assert conf.task_time_limit < conf.broker_transport_options["visibility_timeout"]


def test_a_worker_that_dies_gives_its_message_back_and_holds_no_others() -> None:
    conf = app.conf
    assert conf.task_acks_late
    assert conf.task_reject_on_worker_lost
    assert conf.worker_prefetch_multiplier == 1


def test_messages_are_json_alone_and_no_queue_is_made_by_a_typing_error() -> None:
    conf = app.conf
    assert (conf.task_serializer, conf.accept_content) == ("json", ["json"])
    assert conf.task_create_missing_queues is False
    queues = {queue.name for queue in conf.task_queues}
    assert {queue for _, queue in CLOCKWORK.values()} == queues
    assert conf.task_default_queue in queues


def test_the_page_about_tasks_says_the_time_limit_that_there_is() -> None:
    assert f"ends it softly after {app.conf.task_soft_time_limit} s" in PAGE


@pytest.mark.parametrize("path", TASKS)
def test_files_of_tasks_import_no_model_but_services(path: str) -> None:
    """Celery is transport: what a task knew of rows, a service would have to know again."""
    text = (CLONE / path).read_text(encoding="utf-8")
    imported = [
        node.module
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module
    ]
    assert [module for module in imported if module.split(".")[1:2] == ["models"]] == []
    assert Path(path).stem == "tasks"
