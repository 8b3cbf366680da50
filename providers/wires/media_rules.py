"""How many input tokens a picture or a sound can be, by the vendor's published rule. Pure.

Upper bounds, because holds rest on them: where a vendor has several rules the greatest counts.
A rule of a model's name goes before its provider's; who has none is bounded by the picture's own
patches, and a picture of unknown size there by nothing but the context.
"""

from collections.abc import Callable
from typing import Final

from providers.pictures import Picture

# A picture's bound, or None where only the context bounds it.
Rule = Callable[[Picture], int | None]

# The smallest patch that open models cut pictures into, and what they make of a tiny one.
PATCH_PIXELS: Final = 14
SMALL_PICTURE_TOKENS: Final = 4_096
# OpenAI: patches of 32 pixels, so many at most, times the greatest multiplier of a model; or
# tiles, of which there are eight at most after scaling. GPT-4o mini charges 33 times a tile.
OPENAI_PATCH_PIXELS: Final = 32
OPENAI_PATCHES: Final = 1_536
OPENAI_PATCHES_ORIGINAL: Final = 10_000
OPENAI_HUNDREDTHS_PER_PATCH: Final = 246
OPENAI_TILES_TOKENS: Final = 85 + 8 * 170
OPENAI_MINI_TILES_TOKENS: Final = 2_833 + 8 * 5_667
# Anthropic: patches of 28 pixels after scaling to what the newest models take.
ANTHROPIC_PATCH_PIXELS: Final = 28
ANTHROPIC_TOKENS: Final = 4_784
# Google: 258 a tile, which is 256 pixels wide at least; newer models up to 2,240 a picture.
GOOGLE_TILE_PIXELS: Final = 256
GOOGLE_TILE_TOKENS: Final = 258
GOOGLE_TOKENS: Final = 2_240

# No codec that is taken has fewer bytes a second, and no vendor more tokens.
SOUND_BYTES_PER_S: Final = 500
SOUND_TOKENS_PER_S: Final = 32

PICTURE_TOKENS_EXPECTED: Final = 1_000
PIXELS_PER_TOKEN_EXPECTED: Final = 750
PICTURE_TOKENS_EXPECTED_LEAST: Final = 85
PICTURE_TOKENS_EXPECTED_MOST: Final = 1_600


def _patches(picture: Picture, pixels: int) -> int:
    return -(-picture.width // pixels) * -(-picture.height // pixels)


def _is_known(picture: Picture) -> bool:
    return bool(picture.width and picture.height)


def _generic(picture: Picture) -> int | None:
    if not _is_known(picture):
        return None
    return max(SMALL_PICTURE_TOKENS, _patches(picture, PATCH_PIXELS))


def _openai(picture: Picture) -> int:
    most = OPENAI_PATCHES_ORIGINAL if picture.detail == "original" else OPENAI_PATCHES
    if _is_known(picture):
        most = min(most, _patches(picture, OPENAI_PATCH_PIXELS))
    return max(OPENAI_TILES_TOKENS, -(-most * OPENAI_HUNDREDTHS_PER_PATCH // 100))


def _openai_mini(picture: Picture) -> int:
    return OPENAI_MINI_TILES_TOKENS


def _anthropic(picture: Picture) -> int:
    if not _is_known(picture):
        return ANTHROPIC_TOKENS
    return min(ANTHROPIC_TOKENS, _patches(picture, ANTHROPIC_PATCH_PIXELS))


def _google(picture: Picture) -> int | None:
    if not _is_known(picture):
        return None
    return max(GOOGLE_TOKENS, GOOGLE_TILE_TOKENS * _patches(picture, GOOGLE_TILE_PIXELS))


_BY_MODEL: Final[tuple[tuple[str, Rule], ...]] = (
    ("gpt-4o-mini", _openai_mini),
    ("gpt-", _openai),
    ("chatgpt-", _openai),
    ("o1", _openai),
    ("o3", _openai),
    ("o4-", _openai),
    ("claude-", _anthropic),
    ("gemini-", _google),
)


def picture_bound(picture: Picture, *, model: str) -> int | None:
    """The most input tokens that this model can make of the picture; None where only its context
    says. A vendor's prefix of the name does not matter."""
    name = model.rpartition("/")[2].lower()
    rule = next((rule for prefix, rule in _BY_MODEL if name.startswith(prefix)), _generic)
    return rule(picture)


def picture_expected(picture: Picture) -> int:
    """What most vendors make of it; ranks and estimates."""
    if not _is_known(picture):
        return PICTURE_TOKENS_EXPECTED
    tokens = picture.width * picture.height // PIXELS_PER_TOKEN_EXPECTED
    return max(PICTURE_TOKENS_EXPECTED_LEAST, min(tokens, PICTURE_TOKENS_EXPECTED_MOST))


def sound_bound(size_bytes: int) -> int:
    """The most input tokens that a sound of so many bytes can be."""
    return -(-size_bytes * SOUND_TOKENS_PER_S // SOUND_BYTES_PER_S) + SOUND_TOKENS_PER_S
