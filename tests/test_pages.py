"""Pages stand in the index, are found where code names them, and can be read on two screens."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^)\s]+)\)")
# A page that code or a template names by its path from the root.
NAMED = re.compile(r"\b((?:docs|bench|billing|gateway|providers|tests|workers)/[\w/-]+\.md)\b")
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
PROSE_WORDS_MAX = 950


def _kept(*patterns: str) -> list[str]:
    command = ["git", "ls-files", "-co", "--exclude-standard", *patterns]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [path for path in sorted(set(listed.stdout.split())) if (ROOT / path).is_file()]


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_every_page_that_code_names_is_there():
    kinds = ("*.py", "*.toml", "*.yml", "*.html", "*.lua", "*.cpp", "*.h", "*Dockerfile*")
    missing = [
        f"{path}: {name}"
        for path in _kept(*kinds, "Makefile")
        for name in NAMED.findall(_read(path))
        if not (ROOT / name).is_file()
    ]
    assert missing == []


def test_every_page_of_docs_stands_in_its_index():
    index = _read("docs/README.md")
    pages = [path.removeprefix("docs/") for path in _kept("docs/*.md") if path.count("/") == 1]
    unlisted = [page for page in pages if page != "README.md" and page not in LINK.findall(index)]
    assert unlisted == []


def test_pages_of_prose_are_two_screens():
    """Tables and code apart: those are looked things up in, not read."""
    long = {}
    for page in _kept("docs/*.md"):
        lines = [line for line in CODE.sub("", _read(page)).split("\n") if line[:1] != "|"]
        words = len(" ".join(lines).split())
        if words > PROSE_WORDS_MAX:
            long[page] = words
    assert long == {}
