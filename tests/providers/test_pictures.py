"""How large a picture is by its own bytes, and how many tokens it can be by a model's rule."""

import base64
import struct

import pytest

from providers import pictures
from providers.pictures import Picture
from providers.wires import media_rules

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", 640, 481) + bytes(20)
GIF = b"GIF89a" + struct.pack("<HH", 640, 481) + bytes(30)
WEBP_X = b"RIFF\x00\x00\x00\x00WEBPVP8X" + bytes(8) + b"\x7f\x02\x00" + b"\xe0\x01\x00" + bytes(9)
WEBP_L = b"RIFF\x00\x00\x00\x00WEBPVP8L" + bytes(5) + struct.pack("<I", 639 | 480 << 14) + bytes(9)
WEBP = b"RIFF\x00\x00\x00\x00WEBPVP8 " + bytes(10) + struct.pack("<HH", 640, 481) + bytes(9)
APP1 = b"\xff\xe1" + struct.pack(">H", 65_000) + bytes(64_998)
FRAME = b"\xff\xc2" + struct.pack(">HBHH", 11, 8, 481, 640) + bytes(20)
JPEG = b"\xff\xd8" + APP1 + b"\xff" + APP1 + FRAME


@pytest.mark.parametrize("data", [PNG, GIF, WEBP_X, WEBP_L, WEBP, JPEG])
def test_the_size_is_read_from_the_header(data: bytes) -> None:
    url = f"data:image/x;base64,{base64.b64encode(data).decode()}"
    in_lines = base64.encodebytes(data).decode()

    assert pictures.of_url(url) == Picture(640, 481)
    assert pictures.of_base64(in_lines, detail="low") == Picture(640, 481, "low")


@pytest.mark.parametrize(
    "url",
    [
        "https://pictures.example/a.png",
        "data:image/png,notbase64",
        "data:image/png;base64,",
        "data:image/png;base64,%%%%",
        "data:image/png;base64," + base64.b64encode(PNG[:18]).decode()[:20],
        "data:image/heic;base64," + base64.b64encode(b"ftypheic" + bytes(90)).decode(),
        "data:image/jpeg;base64," + base64.b64encode(JPEG[:70_000]).decode(),
        "data:image/jpeg;base64," + base64.b64encode(b"\xff\xd8" + b"\xff" * 999).decode(),
        "data:image/jpeg;base64," + base64.b64encode(b"\xff\xd8\xff\xe1" + bytes(99)).decode(),
        "",
    ],
)
def test_what_cannot_be_read_has_no_size(url: str) -> None:
    assert pictures.of_url(url) == Picture(0, 0)


SMALL, LARGE, ELSEWHERE = Picture(64, 48), Picture(4_000, 3_000), Picture()


@pytest.mark.parametrize(
    ("model", "small", "large", "elsewhere"),
    [
        ("claude-opus-5-5", 6, 4_784, 4_784),
        ("gpt-5", 1_445, 3_779, 3_779),
        ("openai/gpt-5", 1_445, 3_779, 3_779),
        ("gpt-4o-mini", 48_169, 48_169, 48_169),
        ("gemini-3-pro", 2_240, 49_536, None),
        ("qwen3-vl-8b", 4_096, 61_490, None),
    ],
)
def test_a_picture_is_bounded_by_its_model_s_rule(
    model: str, small: int, large: int, elsewhere: int | None
) -> None:
    bounds = [media_rules.picture_bound(p, model=model) for p in (SMALL, LARGE, ELSEWHERE)]

    assert bounds == [small, large, elsewhere]


def test_a_picture_asked_for_in_full_may_be_more() -> None:
    original = Picture(4_000, 3_000, "original")

    assert media_rules.picture_bound(original, model="gpt-5") == 24_600


def test_what_is_expected_of_a_picture_lies_within_what_vendors_charge() -> None:
    assert media_rules.picture_expected(SMALL) == 85
    assert media_rules.picture_expected(Picture(900, 1_000)) == 1_200
    assert media_rules.picture_expected(LARGE) == 1_600
    assert media_rules.picture_expected(ELSEWHERE) == 1_000


def test_a_sound_is_bounded_by_its_bytes() -> None:
    assert media_rules.sound_bound(500_000) == 32_000 + 32
