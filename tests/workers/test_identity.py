from pathlib import Path

import pytest

from workers import identity


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("engine.py", "kernels/product.h", "speculation/phrases.npz", "README.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    monkeypatch.setattr(identity, "PACKAGE", tmp_path)
    return tmp_path


def digest() -> str:
    identity.code_digest.cache_clear()
    try:
        return identity.code_digest()
    finally:
        identity.code_digest.cache_clear()


@pytest.mark.parametrize("name", ["engine.py", "kernels/product.h", "speculation/phrases.npz"])
def test_another_source_or_table_is_another_engine(package: Path, name: str):
    before = digest()
    (package / name).write_text("other")
    assert digest() != before


def test_a_file_that_moved_is_another_engine(package: Path):
    before = digest()
    (package / "engine.py").rename(package / "motor.py")
    assert digest() != before


def test_what_is_written_about_an_engine_is_not_part_of_it(package: Path):
    before = digest()
    (package / "README.md").write_text("other")
    assert digest() == before
