"""Canonical token usage: inclusive parents, billed by leaves. Pure.

`input_tokens` contains cache_read, cache_write_5m, cache_write_1h, audio and image;
`output_tokens` contains reasoning and audio. None is not 0: a count that is due and missing
makes the usage unusable, which the caller quarantines.
"""

import msgspec


class UsageError(ValueError):
    """The counts do not add up; the event is quarantined, never billed as they stand."""


class CanonicalUsage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    input_audio_tokens: int = 0
    input_image_tokens: int = 0
    reasoning_tokens: int = 0
    output_audio_tokens: int = 0

    @property
    def uncached_input_tokens(self) -> int:
        """The leaf that is left of the input once every part is taken out."""
        return (
            self.input_tokens
            - self.cache_read_tokens
            - self.cache_write_5m_tokens
            - self.cache_write_1h_tokens
            - self.input_audio_tokens
            - self.input_image_tokens
        )

    @property
    def text_output_tokens(self) -> int:
        return self.output_tokens - self.reasoning_tokens - self.output_audio_tokens

    def check(self) -> None:
        """Raise UsageError where a leaf is negative."""
        counts = msgspec.structs.astuple(self)
        if min(counts) < 0:
            name = self.__struct_fields__[counts.index(min(counts))]
            raise UsageError(f"negative {name}")
        if self.uncached_input_tokens < 0:
            raise UsageError("parts of the input exceed input_tokens")
        if self.text_output_tokens < 0:
            raise UsageError("parts of the output exceed output_tokens")
