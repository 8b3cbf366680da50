"""The kernels from Python: the C structures, typed functions, and a self-test before first use.

Every pointer handed over belongs to a tensor that its Python owner keeps alive; ctypes releases the
GIL during a call. Shapes are checked here, for C checks nothing.
"""

import ctypes
import weakref
from pathlib import Path

import torch
from torch import Tensor

SELF_TEST_SHAPES = ((16, 32), (50, 96), (33, 70))
SELF_TEST_TOKENS = (1, 2, 9)
# Both operands have 8 bits: a sum is off by less than this share of what it could be at most.
SELF_TEST_TOLERANCE = 0.02
# Sums of fp32 in another order.
EXACT_TOLERANCE = 1e-6
# `Steps::NONE` of product.h: fp32 stays as it is.
EXACT_STEPS = 3


class Unusable(RuntimeError):
    """The library does not load, or computes something else than it should."""


class Matrix(ctypes.Structure):
    _fields_ = (
        ("tiles", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("rows", ctypes.c_int32),
        ("depth", ctypes.c_int32),
        ("steps", ctypes.c_int32),
    )


class Layer(ctypes.Structure):
    _fields_ = (
        ("input_norm", ctypes.c_void_p),
        ("mlp_norm", ctypes.c_void_p),
        ("qkv", Matrix),
        ("output", Matrix),
        ("gate", Matrix),
        ("up", Matrix),
        ("down", Matrix),
    )


class Decoder(ctypes.Structure):
    _fields_ = (
        ("hidden", ctypes.c_int32),
        ("mlp_width", ctypes.c_int32),
        ("heads", ctypes.c_int32),
        ("kv_heads", ctypes.c_int32),
        ("head_dim", ctypes.c_int32),
        ("norm_eps", ctypes.c_float),
        ("angles", ctypes.c_void_p),
        ("layers", ctypes.POINTER(Layer)),
    )


class Step(ctypes.Structure):
    _fields_ = (
        ("span_count", ctypes.c_int32),
        ("token_count", ctypes.c_int32),
        ("contexts", ctypes.c_void_p),
        ("counts", ctypes.c_void_p),
        ("block_counts", ctypes.c_void_p),
        ("block_ids", ctypes.c_void_p),
        ("cache", ctypes.c_void_p),
        ("layer_floats", ctypes.c_int64),
    )


class PackedWeight:
    """A weight [rows, depth] as the kernels read it: fp32, or int8 in about 9 bits for each of its
    numbers, 5 of a 4-bit one."""

    def __init__(self, tiles: Tensor, bias: Tensor | None, shape: torch.Size, steps: int):
        self.rows, self.depth = shape
        self._tiles, self._bias = tiles, bias
        self.nbytes = tiles.nbytes
        self.matrix = Matrix(
            tiles.data_ptr(), None if bias is None else bias.data_ptr(), *shape, steps
        )


class Kernels:
    """A loaded library with its own threads. One thread may call it at a time."""

    def __init__(self, path: Path, *, threads: int) -> None:
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise Unusable(str(error)) from error
        self._declare()
        self.instructions: str = self._library.kernel_instructions().decode()
        self._workspace = self._library.kernel_open(threads)
        weakref.finalize(self, self._library.kernel_close, self._workspace)
        self._test()

    def pack(
        self, weight: Tensor, bias: Tensor | None = None, *, exact: bool = False
    ) -> PackedWeight:
        """In int8, unless `exact`. Raises `ValueError` for a weight whose numbers have no fp16
        scale."""
        weight = weight.float().contiguous()
        rows, depth = weight.shape
        source = (weight.data_ptr(), rows, depth)
        steps = EXACT_STEPS if exact else self._library.kernel_best_steps(*source)
        size = self._library.kernel_packed_bytes(rows, depth, steps)
        tiles = torch.empty(size, dtype=torch.uint8)
        assert tiles.data_ptr() % 64 == 0
        if not self._library.kernel_pack(*source, steps, tiles.data_ptr()):
            raise ValueError("a weight is too large for int8")
        return PackedWeight(tiles, bias, weight.shape, steps)

    def product(self, weight: PackedWeight, x: Tensor) -> Tensor:
        """`x @ W.T + bias` for x [tokens, depth]."""
        assert x.shape[1] == weight.depth
        assert x.dtype == torch.float32
        x = x.contiguous()
        out = torch.empty(x.shape[0], weight.rows)
        self._library.kernel_product(
            self._workspace,
            ctypes.byref(weight.matrix),
            x.data_ptr(),
            x.shape[0],
            out.data_ptr(),
        )
        return out

    def run_layers(self, decoder: Decoder, step: Step, depth: int, hidden: Tensor) -> None:
        """Bring hidden states [tokens, hidden] through `depth` layers, in place."""
        assert hidden.is_contiguous()
        assert hidden.shape == (step.token_count, decoder.hidden)
        self._library.kernel_layers(
            self._workspace,
            ctypes.byref(decoder),
            ctypes.byref(step),
            depth,
            hidden.data_ptr(),
        )

    def normed_product(
        self, decoder: Decoder, norm: Tensor, weight: PackedWeight, hidden: Tensor
    ) -> Tensor:
        """`rms_norm(hidden) @ W.T` for hidden states [tokens, hidden] of the decoder."""
        assert hidden.shape[1] == weight.depth == decoder.hidden == len(norm)
        hidden = hidden.contiguous()
        out = torch.empty(len(hidden), weight.rows)
        self._library.kernel_normed_product(
            self._workspace,
            ctypes.byref(decoder),
            norm.data_ptr(),
            ctypes.byref(weight.matrix),
            hidden.data_ptr(),
            len(hidden),
            out.data_ptr(),
        )
        return out

    def peaks(self, logits: Tensor) -> list[tuple[int, float]]:
        """Where the largest number of each row [rows, width] stands, and it: of equal ones the
        first, and NaN above all."""
        assert logits.is_contiguous()
        assert logits.dtype == torch.float32
        rows, width = logits.shape
        assert width > 0
        values, places = (ctypes.c_float * rows)(), (ctypes.c_int32 * rows)()
        self._library.kernel_peaks(self._workspace, logits.data_ptr(), rows, width, values, places)
        return list(zip(places, values, strict=True))

    def draw(self, row: Tensor, temperature: float, chance: float) -> int:
        """The token that `chance` in [0, 1) selects from the softmax of `row` [width]."""
        assert row.is_contiguous()
        assert row.dtype == torch.float32
        place: int = self._library.kernel_draw(
            self._workspace, row.data_ptr(), len(row), temperature, chance
        )
        return place

    def likely(self, row: Tensor, temperature: float, floor: float) -> tuple[Tensor, Tensor]:
        """Tokens of `row` [width] whose share of its softmax is at least `floor` times the largest,
        and their shares."""
        assert row.is_contiguous()
        assert row.dtype == torch.float32
        tokens, shares = torch.empty(len(row), dtype=torch.int64), torch.empty(len(row))
        count = self._library.kernel_likely(
            self._workspace,
            row.data_ptr(),
            len(row),
            temperature,
            floor,
            tokens.data_ptr(),
            shares.data_ptr(),
        )
        return tokens[:count], shares[:count]

    def _declare(self) -> None:
        pointer, number, library = ctypes.c_void_p, ctypes.c_int, self._library
        library.kernel_instructions.restype = ctypes.c_char_p
        library.kernel_open.argtypes = (number,)
        library.kernel_open.restype = pointer
        library.kernel_close.argtypes = (pointer,)
        library.kernel_close.restype = None
        library.kernel_best_steps.argtypes = (pointer, number, number)
        library.kernel_best_steps.restype = number
        library.kernel_packed_bytes.argtypes = (number, number, number)
        library.kernel_packed_bytes.restype = ctypes.c_int64
        library.kernel_pack.argtypes = (pointer, number, number, number, pointer)
        library.kernel_pack.restype = number
        library.kernel_product.argtypes = (pointer, pointer, pointer, number, pointer)
        library.kernel_product.restype = None
        library.kernel_layers.argtypes = (pointer, pointer, pointer, number, pointer)
        library.kernel_layers.restype = None
        library.kernel_normed_product.argtypes = (
            *(pointer, pointer, pointer, pointer, pointer),
            *(number, pointer),
        )
        library.kernel_normed_product.restype = None
        library.kernel_peaks.argtypes = (pointer, pointer, number, number, pointer, pointer)
        library.kernel_peaks.restype = None
        real, double = ctypes.c_float, ctypes.c_double
        library.kernel_draw.argtypes = (pointer, pointer, number, real, double)
        library.kernel_draw.restype = number
        library.kernel_likely.argtypes = (
            *(pointer, pointer, number, real, real),
            *(pointer, pointer),
        )
        library.kernel_likely.restype = number

    def _test(self) -> None:
        """Products of odd shapes against plain ones, as a whole and row by row."""
        generator = torch.Generator().manual_seed(7)
        for shape in SELF_TEST_SHAPES:
            weight = torch.randn(shape, generator=generator)
            bias = torch.randn(shape[0], generator=generator)
            x = torch.randn(max(SELF_TEST_TOKENS), shape[1], generator=generator)
            self._compare(weight, bias, x, exact=False, tolerance=SELF_TEST_TOLERANCE)
            self._compare(weight, bias, x, exact=True, tolerance=EXACT_TOLERANCE)

    def _compare(
        self, weight: Tensor, bias: Tensor, x: Tensor, *, exact: bool, tolerance: float
    ) -> None:
        packed, name = self.pack(weight, bias, exact=exact), "fp32" if exact else "int8"
        for tokens in SELF_TEST_TOKENS:
            rows = x[:tokens]
            wanted, got = rows @ weight.T + bias, self.product(packed, rows)
            limit = tolerance * float(weight.norm(dim=1).max() * rows.norm(dim=1).max())
            shape = tuple(weight.shape)
            if not float((got - wanted).abs().max()) <= limit:
                raise Unusable(f"an {name} product of {shape} is wrong")
            if not torch.equal(self.product(packed, rows[-1:]), got[-1:]):
                raise Unusable(f"an {name} product of {shape} depends on its neighbours")
