"""What each kind of code holds to beside what all of it does: views, classes, names, words, rows.

The rules stand in CONTRIBUTING.md, in the pages of "To add something" and in the READMEs.
"""

import ast
import re
import subprocess
from collections.abc import Iterator
from typing import Final

import pytest

from tests.test_tidy import CLONE, PRODUCT, functions, lines_of, parsed

VIEW_LINES_MAX: Final = 25
CLASS_LINES_MAX: Final = 250
VIEW_MARKS: Final = frozenset(
    {"require_safe", "require_POST", "require_http_methods", "login_required", "tenant_page"}
)
# A number of these is a time, and its name says in which unit.
TIMES: Final = re.compile(
    r"(^|_)(timeout|interval|delay|period|ttl|age|duration|elapsed|deadline|wait|lag|latency)$"
)
NUMBERS: Final = frozenset({"int", "float", "int | None", "float | None"})
# What is there is known field by field: nothing from elsewhere is passed on unlooked at.
KNOWN: Final = (
    "gateway/dataplane/",
    "workers/",
    "providers/chat.py",
    "providers/conversation.py",
    "providers/imports/",
    "providers/machines/",
    "providers/market/",
    "providers/models/",
    "providers/wires/",
)
UNKNOWN: Final = re.compile(r"\b(dict|Mapping)\[str, Any\]")
NEGATED: Final = re.compile(r"^(no|not|dis|without|never|isnt|un)_")
CLOCKS: Final = frozenset(
    {"timezone.now", "datetime.now", "datetime.utcnow", "datetime.today", "date.today", "time.time"}
)

# (rule, path, what) -> why it may stay
ALLOWED: Final[dict[tuple[str, str, str], str]] = {
    ("class", "workers/engine/engine.py", "Engine"): "one thread's whole state, in small methods",
    ("time", "gateway/database/base.py", "timeout"): "Django's and psycopg's own name",
    ("time", "gateway/database/time_limits.py", "interval"): "psycopg's own name",
    ("time", "gateway/database/time_limits.py", "timeout"): "psycopg's own name",
    ("words", "billing/invoicing/pdf.py", "InvoiceRefused"): "a page of its own shows it",
    ("words", "gateway/api/idempotency.py", "Refused"): "the API's own, shown as it is",
    ("words", "gateway/sign_on/identities.py", "IdentityRefused"): "the sign-in page shows it",
}


def without_allowed(rule: str, found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(path, what) for path, what in found if (rule, path, what) not in ALLOWED]


def test_views_decide_nothing() -> None:
    """At most 25 lines: a form reads, a service decides."""
    long = [
        (path, node.name)
        for path, tree, _ in parsed(*PRODUCT)
        for node in functions(tree)
        if {ast.unparse(each).split("(")[0] for each in node.decorator_list} & VIEW_MARKS
        and lines_of(node) > VIEW_LINES_MAX
    ]
    assert without_allowed("view", long) == []


def test_classes_have_one_concept() -> None:
    long = [
        (path, node.name)
        for path, tree, _ in parsed(*PRODUCT)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and (node.end_lineno or 0) - node.lineno + 1 > CLASS_LINES_MAX
    ]
    assert without_allowed("class", long) == []


def named_numbers() -> Iterator[tuple[str, str, str]]:
    """Every argument and field that is annotated, with its type."""
    for path, tree, _ in parsed(*PRODUCT):
        for node in ast.walk(tree):
            if isinstance(node, ast.arg) and node.annotation is not None:
                yield path, node.arg, ast.unparse(node.annotation)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield path, node.target.id, ast.unparse(node.annotation)


def test_a_time_says_its_unit() -> None:
    found = [
        (path, name)
        for path, name, kind in named_numbers()
        if kind in NUMBERS and TIMES.search(name)
    ]
    assert without_allowed("time", found) == []


@pytest.mark.parametrize("name", ["timeout", "ttl", "retry_delay", "max_age"])
def test_a_time_without_its_unit_would_be_found(name: str) -> None:
    assert TIMES.search(name)
    assert not TIMES.search(f"{name}_s")


def test_what_comes_from_elsewhere_gets_a_shape() -> None:
    """A struct, a typed dictionary, or JSON that must be narrowed before it is used."""
    shapeless = [
        (path, ast.unparse(node))
        for path, tree, _ in parsed(*PRODUCT)
        if path.startswith(KNOWN)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and UNKNOWN.fullmatch(ast.unparse(node))
    ]
    assert without_allowed("shape", shapeless) == []


def test_what_is_true_or_false_is_said_positively() -> None:
    found = [
        (path, name)
        for path, name, kind in named_numbers()
        if kind in ("bool", "bool | None") and NEGATED.search(name)
    ]
    assert without_allowed("negated", found) == []


# Where time comes in from outside: whoever is called by these is told it.
EDGES: Final = re.compile(
    r"/(admin|console|api|runtime|demo|tasks|management|templatetags|sign_on|clocks)(/|\.py|_)"
    r"|/\w*admin\.py$|/server/|/middleware"
)
READS_THE_CLOCK: Final[dict[str, str]] = {
    "billing/credit/balances.py": "whoever asks what is left asks now, unless told otherwise",
    "billing/operations/task_runs.py": "the one place where a task reads it",
    "providers/boards/leaderboards.py": "a board is of now, unless told otherwise",
    "providers/boards/measurements.py": "what is left of a window is of now, unless told otherwise",
    "workers/text/tokenizer.py": "chat templates write the day into the prompt",
}


def test_time_is_handed_on_and_read_at_the_edges_alone() -> None:
    readers = {
        path
        for path, tree, _ in parsed(*PRODUCT)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in CLOCKS
    }
    inside = {path for path in readers if not EDGES.search(path)}
    assert sorted(inside) == sorted(READS_THE_CLOCK)


def test_every_moment_has_a_zone() -> None:
    bare = [
        f"{path}:{node.lineno}"
        for path, tree, _ in parsed(*PRODUCT)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("datetime.now", "datetime.fromtimestamp")
        and not (node.keywords or len(node.args) > (ast.unparse(node.func) != "datetime.now"))
    ]
    assert bare == []


# --- words --------------------------------------------------------------------------------------


def refusals() -> Iterator[tuple[str, str, str]]:
    """Every refusal of a service with the text it begins with, `…` for what is filled in."""
    for path, tree, _ in parsed("billing", "gateway", "providers"):
        for node in ast.walk(tree):
            if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
                continue
            name = ast.unparse(node.exc.func).split(".")[-1]
            text = said(node.exc.args[0]) if node.exc.args else ""
            if name.endswith("Refused") and text:
                yield path, name, text


def said(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = (each.value if isinstance(each, ast.Constant) else "…" for each in node.values)
        return "".join(str(part) for part in parts)
    return ""


def test_a_service_refuses_in_words_that_fit_into_a_sentence() -> None:
    """Pages say "Nothing was changed: …." around them."""
    odd = [
        (path, name)
        for path, name, text in refusals()
        if text.endswith(".") or re.match(r"[A-Z][a-z]+\b(?<!Redis)(?<!Postgre)(?!SQL)", text)
    ]
    assert without_allowed("words", odd) == []


def test_no_refusal_is_empty_or_a_code() -> None:
    bare = [(path, name, text) for path, name, text in refusals() if " " not in text]
    assert bare == []


def test_there_are_refusals_to_look_at() -> None:
    assert len(list(refusals())) > 100


# --- rows ---------------------------------------------------------------------------------------

# What goes with its parent: a limit or a notice with its tenant, a part of a draft or of an upload
# with the whole.
GOES_WITH: Final = frozenset(
    """AlertChannel AlertDelivery BillRate BillingProfile BudgetAlert CallCount CallProfile
    CoveredSpan CreditAlert CreditThreshold InvoiceLine MadeKey ProviderBillRow Quota
    RateLimit Recharge RevokedKey""".split()
)


def test_nothing_of_the_books_goes_with_something_else() -> None:
    """Accounts, entries, events, prices, documents, payments: deleting a tenant fails."""
    cascading = {
        model.name
        for path, tree, _ in parsed("billing")
        for model in ast.walk(tree)
        if isinstance(model, ast.ClassDef)
        for node in ast.walk(model)
        if isinstance(node, ast.keyword)
        and node.arg == "on_delete"
        and "CASCADE" in ast.unparse(node.value)
    }
    assert cascading == GOES_WITH


def migrations() -> Iterator[tuple[str, ast.Module]]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*/migrations/*.py"],
        cwd=CLONE,
        capture_output=True,
        text=True,
        check=True,
    )
    for path in sorted(listed.stdout.split()):
        if not path.endswith("__init__.py") and (CLONE / path).exists():
            yield path, ast.parse((CLONE / path).read_text(encoding="utf-8"))


def operations(tree: ast.Module, *names: str) -> Iterator[dict[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in names:
            given = {each.arg: ast.unparse(each.value) for each in node.keywords if each.arg}
            yield {name: value.strip("'\"").lower() for name, value in given.items()}


# Before the rule: these tables were new in the release of the migration.
INDEXED_WHILE_NEW: Final = frozenset(
    {
        "billing/migrations/0011_scopes_and_modes.py",
        "billing/migrations/0040_credit_that_ends.py",
    }
)


def test_an_index_on_a_table_that_is_there_keeps_no_writer_waiting() -> None:
    """A plain AddIndex locks the table against writers for as long as it is read."""
    locking = {
        path
        for path, tree in migrations()
        for made in [{each["name"] for each in operations(tree, "CreateModel")}]
        for each in operations(tree, "AddIndex")
        if each["model_name"] not in made
    }
    assert locking == INDEXED_WHILE_NEW


def test_a_concurrent_index_is_in_no_transaction() -> None:
    wrong = [
        path
        for path, tree in migrations()
        if list(operations(tree, "AddIndexConcurrently", "RemoveIndexConcurrently"))
        and "atomic = False" not in ast.unparse(tree)
    ]
    assert wrong == []


def test_a_migration_has_a_telling_name() -> None:
    untold = [path for path, _ in migrations() if re.search(r"_auto_|_alter_|_\d{8}_", path)]
    assert untold == []


CONSTANT: Final = ("null=true", "default=", "blank=true", "manytomany", "autofield", "digest()")


def test_a_new_column_writes_no_row_anew() -> None:
    """Nullable, or with a default that is the same for every row: empty text is one."""
    heavy = [
        (path, each["model_name"], each["name"])
        for path, tree in migrations()
        for each in operations(tree, "AddField")
        if not any(word in each["field"] for word in CONSTANT)
        and each["model_name"] not in {m["name"] for m in operations(tree, "CreateModel")}
    ]
    assert heavy == []


def test_the_list_of_what_may_stay_names_only_what_is_there() -> None:
    paths = {path for _, path, _ in ALLOWED} | set(READS_THE_CLOCK) | INDEXED_WHILE_NEW
    assert sorted(path for path in paths if not (CLONE / path).exists()) == []
