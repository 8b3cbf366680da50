"""Style as a test: what a linter does not know about this project's own rules.

ALLOWED is the ratchet. It names what may break a rule, and why; it should only ever get shorter.
"""

import ast
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

CLONE: Final = Path(__file__).resolve().parents[1]
SOURCE_PACKAGES: Final = ("gateway", "billing", "providers", "workers", "bench")
PRODUCT: Final = ("gateway", "billing", "providers", "workers")
FILE_LINES_MAX: Final = 500
PRODUCT_FILE_LINES_MAX: Final = 400
FUNCTION_LINES_MAX: Final = 70
PRODUCT_FUNCTION_LINES_MAX: Final = 67
# Of a hundred functions one may be longer.
FUNCTION_LINES_P99: Final = 40
TEMPLATE_LINE_MAX: Final = 120
# A folder of more is two concepts.
PRODUCT_FOLDER_FILES_MAX: Final = 20
PARAMETERS_MAX: Final = 8
BANNED_STEMS: Final = {"utils", "util", "helpers", "helper", "manager", "handler", "data", "misc"}
BANNED_WORDS: Final = ("TO" + "DO", "FIX" + "ME", "X" * 3)
TIME_UNITS: Final = ("_ms", "_s", "_tps")
# Django looks for an app's models and admin pages in these, so they import theirs.
FOUND_BY_DJANGO: Final = ("/models/__init__.py", "/admin/__init__.py")
HTTPX_CALLS: Final = {
    f"httpx.{name}"
    for name in ("get", "post", "put", "delete", "options", "request", "stream", "Client")
} | {"httpx.AsyncClient"}
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef

# (rule, path relative to the clone, what) -> why it may stay
ALLOWED: Final[dict[tuple[str, str, str], str]] = {
    ("product file", "gateway/settings.py", ""): "a table",
    ("parameters", "billing/prices/versions.py", "publish"): "a price has as many parts, all named",
    ("local import", "bench/drain/__main__.py", "measure"): "it starts Postgres before Django",
    ("local import", "bench/drain/__main__.py", "boards_refreshed"): "the same",
}


def listed(*folders: str) -> list[Path]:
    """Files of the repository, those not committed yet included."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "--", *(f"{f}/" for f in folders)]
    found = subprocess.run(command, cwd=CLONE, capture_output=True, text=True, check=True)
    return [path for path in map(CLONE.joinpath, found.stdout.splitlines()) if path.exists()]


def files(*folders: str) -> list[Path]:
    return [
        path for path in listed(*folders) if path.suffix == ".py" and "migrations" not in path.parts
    ]


@cache
def parsed(*folders: str) -> list[tuple[str, ast.Module, str]]:
    texts = [(path, path.read_text(encoding="utf-8")) for path in files(*folders)]
    return [(str(path.relative_to(CLONE)), ast.parse(text), text) for path, text in texts]


def functions(tree: ast.AST) -> Iterator[FunctionNode]:
    return (node for node in ast.walk(tree) if isinstance(node, FunctionNode))


def lines_of(node: FunctionNode) -> int:
    return (node.end_lineno or 0) - node.lineno + 1


def without_allowed(rule: str, found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(path, what) for path, what in found if (rule, path, what) not in ALLOWED]


def test_files_are_short() -> None:
    found = [
        (path, f"{text.count(chr(10))} lines")
        for path, _, text in parsed(*SOURCE_PACKAGES, "tests")
        if text.count("\n") > FILE_LINES_MAX
    ]
    assert without_allowed("file", found) == []


def test_a_folder_of_the_product_holds_few_files() -> None:
    held = Counter(path.parent.relative_to(CLONE) for path in files(*PRODUCT, "bench"))
    assert {folder: n for folder, n in held.items() if n > PRODUCT_FOLDER_FILES_MAX} == {}


def test_files_of_the_product_are_shorter_still() -> None:
    long = [(p, "") for p, _, text in parsed(*PRODUCT) if text.count("\n") > PRODUCT_FILE_LINES_MAX]
    assert without_allowed("product file", long) == []


def test_all_but_a_hundredth_of_the_functions_fit_on_a_screen() -> None:
    lengths = sorted(lines_of(node) for _, tree, _ in parsed(*PRODUCT) for node in functions(tree))
    assert lengths[len(lengths) * 99 // 100] <= FUNCTION_LINES_P99
    assert lengths[-1] <= PRODUCT_FUNCTION_LINES_MAX


def test_lines_of_templates_are_short() -> None:
    """A formatter lays them out, and leaves a line that it may not break; text and mail alike."""
    found = [
        (str(path.relative_to(CLONE)), str(number))
        for path in listed("templates", "gateway", "billing", "providers")
        if "templates" in path.parts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if len(line) > TEMPLATE_LINE_MAX
    ]
    assert without_allowed("template line", found) == []


def test_functions_are_short() -> None:
    found = [
        (path, node.name)
        for path, tree, _ in parsed(*SOURCE_PACKAGES, "tests")
        for node in functions(tree)
        if lines_of(node) > FUNCTION_LINES_MAX
    ]
    assert without_allowed("function", found) == []


def test_functions_take_few_parameters() -> None:
    found = [
        (path, node.name)
        for path, tree, _ in parsed(*SOURCE_PACKAGES)
        for node in functions(tree)
        if len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs) > PARAMETERS_MAX
    ]
    assert without_allowed("parameters", found) == []


def test_imports_stand_at_the_top() -> None:
    found = [
        (path, node.name)
        for path, tree, _ in parsed(*SOURCE_PACKAGES)
        for node in functions(tree)
        if any(isinstance(inner, ast.Import | ast.ImportFrom) for inner in ast.walk(node))
    ]
    assert without_allowed("local import", found) == []


def test_package_files_are_empty() -> None:
    found = [
        (path, "not empty")
        for path, _, text in parsed(*SOURCE_PACKAGES, "tests")
        if path.endswith("__init__.py") and text.strip() and not path.endswith(FOUND_BY_DJANGO)
    ]
    assert without_allowed("init", found) == []


def test_modules_say_what_they_own() -> None:
    found = [
        (path, "no docstring")
        for path, tree, _ in parsed(*SOURCE_PACKAGES)
        if not path.endswith("__init__.py") and ast.get_docstring(tree) is None
    ]
    assert without_allowed("docstring", found) == []


def test_modules_have_telling_names() -> None:
    found = [(path, "") for path, _, _ in parsed(*SOURCE_PACKAGES) if stem(path) in BANNED_STEMS]
    assert without_allowed("name", found) == []


def stem(path: str) -> str:
    return Path(path).stem


def test_the_environment_is_read_in_one_place() -> None:
    def reads(tree: ast.Module) -> bool:
        return any(
            (isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv", "environb"})
            or (isinstance(node, ast.alias) and node.name in {"environ", "getenv"})
            for node in ast.walk(tree)
        )

    found = [(path, "") for path, tree, _ in parsed(*SOURCE_PACKAGES) if reads(tree)]
    assert without_allowed("environment", found) == [("gateway/env.py", "")]


@pytest.mark.parametrize("word", BANNED_WORDS)
def test_nothing_is_left_for_later(word: str) -> None:
    found = [
        (path, word)
        for path, _, text in parsed(*SOURCE_PACKAGES, "tests")
        if any(word in line.split() or f"{word}:" in line for line in text.splitlines())
    ]
    assert without_allowed("word", found) == []


def test_money_is_never_a_float() -> None:
    found = [
        (path, ast.unparse(node))
        for path, tree, _ in parsed("billing")
        for node in nodes_but_times(tree)
        if is_float(node)
    ]
    assert without_allowed("float", found) == []


def nodes_but_times(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes, except what belongs to a name whose unit is a time or a speed."""
    for child in ast.iter_child_nodes(tree):
        if not names_of(child, TIME_UNITS):
            yield child
            yield from nodes_but_times(child)


def names_of(node: ast.AST, units: tuple[str, ...]) -> bool:
    if isinstance(node, ast.arg):
        return node.arg.endswith(units)
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    names = [target.id.lower() for target in targets if isinstance(target, ast.Name)]
    return bool(names) and all(name.endswith(units) for name in names)


def is_float(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, float)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        joins_a_path = isinstance(node.right, ast.JoinedStr) or (
            isinstance(node.right, ast.Constant) and isinstance(node.right.value, str)
        )
        return not joins_a_path
    if isinstance(node, ast.AugAssign):
        return isinstance(node.op, ast.Div)
    return isinstance(node, ast.Name) and node.id == "float"


def test_clients_of_tests_are_patient() -> None:
    """httpx gives up after five seconds where nobody says for how long: no promise of ours."""
    found = [
        (path, f"line {node.lineno}")
        for path, tree, _ in parsed("tests")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in HTTPX_CALLS
        and not {"timeout", None} & {keyword.arg for keyword in node.keywords}
    ]
    assert without_allowed("patience", found) == []


def test_no_global_statement() -> None:
    found = [
        (path, ", ".join(node.names))
        for path, tree, _ in parsed(*SOURCE_PACKAGES)
        for node in ast.walk(tree)
        if isinstance(node, ast.Global)
    ]
    assert without_allowed("global", found) == []


def test_imports_form_no_cycle() -> None:
    """Nor by an import inside a function, or by importlib."""
    modules = {module_name(path): tree for path, tree, _ in parsed(*SOURCE_PACKAGES)}
    graph = {name: set(imported(tree, modules)) - {name} for name, tree in modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as cycle:
        pytest.fail(" -> ".join(cycle.args[1]))


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported(tree: ast.Module, modules: dict[str, ast.Module]) -> Iterator[str]:
    """What a module imports, wherever in it: but not for its types alone."""
    for node in walked(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name in modules)
            case ast.ImportFrom(module=str(package), names=names, level=0):
                for alias in names:
                    submodule = f"{package}.{alias.name}"
                    if submodule in modules:
                        yield submodule
                    elif package in modules:
                        yield package
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ) if name in modules:
                yield name


def walked(node: ast.AST) -> Iterator[ast.AST]:
    """Everything below, `TYPE_CHECKING` blocks left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from walked(child)


@pytest.mark.parametrize(
    "line",
    [
        "from bench import two",
        "def late():\n    from bench import two",
        "def late():\n    return importlib.import_module('bench.two')",
        "two = import_module('bench.two')",
        "import bench.two",
    ],
)
def test_an_import_is_seen_wherever_it_stands(line: str) -> None:
    modules = {"bench.two": ast.parse("")}
    assert list(imported(ast.parse(line), modules)) == ["bench.two"]
    guarded = "if TYPE_CHECKING:\n    from bench import two"
    assert list(imported(ast.parse(guarded), modules)) == []


def test_the_ratchet_names_only_what_is_there() -> None:
    gone = [path for _, path, _ in ALLOWED if not (CLONE / path).exists()]
    assert gone == []
