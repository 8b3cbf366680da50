"""What the pages name exists: files, folders, modules, commands, links and headings.

A path counts where it stands in the tree under that name or ends so (`holding/holds.py`), or
from the page's own folder (`../bill_admin.py`); a dotted name where a module has it at its top.
"""

import ast
import re
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Final

import pytest
from django.core.management import get_commands

CLONE: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = ("billing", "providers", "gateway", "workers", "bench", "tests")
# What a page may name with an ending of these is a file of the tree, not of somebody's machine.
ENDINGS: Final = (".py", ".md", ".lua", ".toml", ".typ", ".cpp", ".h", ".js", ".css", ".html")
# Past releases name what was there then.
HISTORY: Final = {"CHANGELOG.md", "THIRD_PARTY_NOTICES.md"}
# Folders that Django looks for explain themselves.
DJANGOS: Final = {"migrations", "management", "models", "templates", "templatetags", "formats"}

FENCED: Final = re.compile(r"^( *)```.*?^\1```", re.DOTALL | re.MULTILINE)
QUOTED: Final = re.compile(r"`([^`\n]+)`")
LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
PATH: Final = re.compile(r"(\.\./)*[\w.*-]+(/[\w.*-]+)*/?")
MODULE: Final = re.compile(r"\bpython3? -m (\w+(?:\.\w+)*)")
MANAGE: Final = re.compile(r"\bmanage\.py (\w+)")
MAKE: Final = re.compile(r"^ *make ([a-z]+)")
OPTION: Final = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
# Options of other people's programs.
FOREIGN_OPTIONS: Final = {"--profile"}
# A word of a program; with many digits it is an example's.
WORD: Final = re.compile(r"\b(?!\w*\d{4})[^\W\d]\w*")
SOURCES: Final = (".py", ".lua", ".h", ".cpp", ".toml", "Makefile")
DOTTED: Final = re.compile(r"[a-z_]\w*(\.\w+)+")


@cache
def listed() -> frozenset[str]:
    """Files and folders of the repository, those not committed yet included."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    lines = subprocess.run(command, cwd=CLONE, capture_output=True, text=True, check=True).stdout
    files = [line for line in lines.splitlines() if (CLONE / line).exists()]
    return frozenset(files) | {
        str(folder) for file in files for folder in PurePosixPath(file).parents
    }


@cache
def endings() -> frozenset[str]:
    """Each way in which a page can name something of the tree: whole, or from any folder on."""
    return frozenset(
        "/".join(parts[at:])
        for parts in (PurePosixPath(path).parts for path in listed())
        for at in range(len(parts))
    )


def pages() -> list[str]:
    return sorted(path for path in listed() if path.endswith(".md") and path not in HISTORY)


def developers_pages() -> list[str]:
    """Those beside the code."""
    return [page for page in pages() if not page.startswith("docs/")]


def text_of(page: str) -> str:
    return (CLONE / page).read_text(encoding="utf-8")


def quoted(page: str) -> Iterator[str]:
    """What stands in backticks, outside of blocks of code."""
    return (found[1] for found in QUOTED.finditer(FENCED.sub("", text_of(page))))


def commands(page: str) -> Iterator[str]:
    """Lines of blocks of code, and what stands in backticks."""
    for block in FENCED.finditer(text_of(page)):
        yield from block[0].splitlines()
    yield from quoted(page)


def is_there(path: str, page: str) -> bool:
    """`path` as the page's reader would look for it; a star stands for some name."""
    if path.startswith("../"):
        return (CLONE / page).parent.joinpath(path).exists()
    if "*" in path:
        return any(fnmatch(known, path) for known in endings())
    return path in endings()


def is_of_the_tree(word: str) -> bool:
    if not PATH.fullmatch(word):
        return False
    first = word.split("/")[0]
    return word.endswith(ENDINGS) or ("/" in word and first in (*PACKAGES, "docs", ".."))


@pytest.mark.parametrize("page", pages())
def test_files_that_a_page_names_exist(page: str) -> None:
    words = {word.split("::")[0].strip(",;:()") for text in quoted(page) for word in text.split()}
    missing = [w for w in sorted(words) if is_of_the_tree(w) and not is_there(w.rstrip("/"), page)]
    assert missing == [], f"{page} names files that are not there"


@pytest.mark.parametrize("page", pages())
def test_functions_and_tests_that_a_page_gives_by_file_exist(page: str) -> None:
    named = {word for text in quoted(page) for word in text.split() if ".py::" in word}
    missing = [word for word in sorted(named) if not has_name(*word.split("::"))]
    assert missing == [], f"{page} gives names that their files do not have"


def has_name(path: str, name: str) -> bool:
    known = [file for file in listed() if file == path or file.endswith(f"/{path}")]
    return any(name in tops(file) for file in known)


@cache
def tops(file: str) -> frozenset[str]:
    """What a module says at its top: functions, classes, values, and the names of a class."""
    tree = ast.parse((CLONE / file).read_text(encoding="utf-8"))
    return frozenset(
        name
        for node in (
            *tree.body,
            *(n for c in tree.body if isinstance(c, ast.ClassDef) for n in c.body),
        )
        for name in names_of(node)
    )


def names_of(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


@pytest.mark.parametrize("page", pages())
def test_names_within_modules_that_a_page_gives_exist(page: str) -> None:
    """`billing.money`, and in a package's README `scopes.check` of the module beside it."""
    words = {text.split("(")[0] for text in quoted(page)}
    missing = [word for word in sorted(words) if DOTTED.fullmatch(word) and lacks(word, page)]
    assert missing == [], f"{page} names what no module has"


def lacks(word: str, page: str) -> bool:
    """Whether it begins with one of our modules, and none of those has what follows."""
    parts = word.split(".")
    if word in endings():
        return False
    beside = [f"{PurePosixPath(page).parent}/"] if page.endswith("README.md") else []
    answers = [has(folder, parts) for folder in ("", *beside)]
    return False in answers and True not in answers


def has(folder: str, parts: list[str]) -> bool | None:
    """Whether the module of a dotted name says the rest at its top; None where there is none."""
    for length in range(len(parts), 0, -1):
        path = folder + "/".join(parts[:length])
        if f"{path}.py" in listed():
            return length == len(parts) or parts[length] in tops(f"{path}.py")
        if folder == "" and parts[0] in PACKAGES and path in listed():
            return length == len(parts) or is_model(path, parts[length])
    return None


def is_model(app: str, name: str) -> bool:
    """Django's name for a table: the app, then the class (`billing.Invoice`)."""
    files = [file for file in listed() if file.startswith(f"{app}/models") and file.endswith(".py")]
    return any(name in tops(file) for file in files)


@cache
def words_of_the_tree() -> frozenset[str]:
    """Every word of our sources, and the names of files and folders."""
    sources = [CLONE / path for path in listed() if path.endswith(SOURCES)]
    texts = [path.read_text(encoding="utf-8") for path in sources if path != Path(__file__)]
    named = {name for path in listed() for name in (Path(path).name, Path(path).stem)}
    return frozenset(WORD.findall(" ".join(texts))) | named


@pytest.mark.parametrize("page", developers_pages())
def test_words_in_backticks_of_a_developers_page_are_in_the_sources(page: str) -> None:
    """Functions, settings, columns: whatever a page calls by its name."""
    named = {word for text in quoted(page) for word in WORD.findall(text)}
    missing = sorted(word for word in named if word not in words_of_the_tree())
    assert missing == [], f"{page} uses names that no source has"


@pytest.mark.parametrize("page", pages())
def test_commands_that_a_page_gives_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE))
    missing = []
    for line in commands(page):
        missing += [f"python -m {name}" for name in MODULE.findall(line) if not can_run(name)]
        missing += [f"manage.py {n}" for n in MANAGE.findall(line) if n not in get_commands()]
        missing += [f"make {name}" for name in MAKE.findall(line) if name not in targets]
    assert missing == [], f"{page} gives commands that are not there"


@cache
def options_of_the_tree() -> frozenset[str]:
    """Those that some source takes or gives, as a text of its own or in a script."""
    scripts = ["Makefile", *(path for path in listed() if path.startswith(".ci/"))]
    known = {option for path in scripts for option in OPTION.findall(text_of(path))}
    for path in listed():
        if path.endswith(".py") and CLONE / path != Path(__file__):
            known |= set(re.findall(r"[\"'](--[a-z][a-z0-9-]+)[\"'= ]", text_of(path)))
    return frozenset(known)


@pytest.mark.parametrize("page", pages())
def test_options_that_a_page_gives_exist(page: str) -> None:
    given = {option for line in commands(page) for option in OPTION.findall(line)}
    missing = sorted(given - options_of_the_tree() - FOREIGN_OPTIONS)
    assert missing == [], f"{page} gives options that no command takes"


def can_run(module: str) -> bool:
    """Ours alone are looked for; pytest and the like are installed."""
    if module.split(".")[0] not in PACKAGES:
        return True
    path = module.replace(".", "/")
    return f"{path}.py" in listed() or f"{path}/__main__.py" in listed()


@pytest.mark.parametrize("page", pages())
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    links = LINK.findall(FENCED.sub("", text_of(page)))
    missing = [link for link in links if "://" not in link and not leads(link, page)]
    assert missing == [], f"{page} links to what is not there"


def leads(link: str, page: str) -> bool:
    path, _, heading = link.partition("#")
    target = (CLONE / page).parent / path if path else CLONE / page
    if not target.exists():
        return False
    return not heading or heading in headings(target.read_text(encoding="utf-8"))


def headings(text: str) -> set[str]:
    """As GitHub makes addresses of them: lower case, words joined, signs gone."""
    found = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


def test_every_room_says_what_it_owns() -> None:
    packages = {PurePosixPath(path).parent for path in listed() if path.endswith("/__init__.py")}
    rooms = [
        str(folder)
        for folder in packages
        if len(folder.parts) <= 2
        and folder.parts[0] in ("billing", "providers", "gateway", "workers")
        and folder.name not in DJANGOS
    ]
    missing = [room for room in sorted(rooms) if f"{room}/README.md" not in listed()]
    assert missing == [], (
        "folders without a README: what it owns, what always holds, where to begin"
    )
