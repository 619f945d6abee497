"""Positional encoding."""

import math

import torch
from torch import Tensor

from grader import Case, Exercise
from reference.transformer import FORBID


def positional_encoding(
    num_positions: int,
    d_model: int,
    *,
    offset: int = 0,
    base: float = 10000.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Make the table of sines and cosines that tells a transformer where each token stands.

    Row p describes the position pos = offset + p. Column 2i holds sin(pos * base ** (-2i / d_model)) and column
    2i + 1 the cosine of the same angle, so an odd d_model ends with a sine column.

    Args:
        num_positions: the number of rows; 0 is legal and gives an empty table.
        d_model: the number of columns.
        offset: the position that row 0 describes.
        base: how slowly the slowest columns turn.
        dtype: dtype of the result. Angles, sines and cosines are computed in float64 and then cast, so that a
            position of a million still has the right phase.

    Returns:
        Tensor `(num_positions, d_model)` of dtype `dtype`, on the CPU.

    Raises:
        ValueError: num_positions < 0, offset < 0, d_model < 1 or base <= 0 (checked first, for empty tables too).

    Example:
        >>> positional_encoding(3, 3)
        tensor([[ 0.0000,  1.0000,  0.0000],
                [ 0.8415,  0.5403,  0.0022],
                [ 0.9093, -0.4161,  0.0043]])
    """
    if num_positions < 0 or offset < 0 or d_model < 1 or base <= 0:
        raise ValueError("num_positions and offset must be >= 0, d_model >= 1 and base > 0")
    positions = torch.arange(offset, offset + num_positions, dtype=torch.float64)
    exponents = torch.arange(0, d_model, 2, dtype=torch.float64) / d_model
    angles = positions[:, None] * base**-exponents
    table = torch.empty(num_positions, d_model, dtype=torch.float64)
    table[:, 0::2] = angles.sin()
    table[:, 1::2] = angles[:, : d_model // 2].cos()
    return table.to(dtype)


exercise = Exercise(
    positional_encoding,
    points=5,
    forbid=FORBID,
    hints=(
        "Write the positions as a column and the frequencies as a row: their product is the table of all angles.",
        "There are ceil(d_model / 2) frequencies, base ** (-2i / d_model); table[:, 0::2] takes the sines, "
        "table[:, 1::2] the cosines of the first d_model // 2 angles.",
        "positions = torch.arange(offset, offset + num_positions, dtype=torch.float64)[:, None]; angles = positions * "
        "base ** -(torch.arange(0, d_model, 2, dtype=torch.float64) / d_model); cast the filled table at the very end.",
    ),
    source="D2L attention-mechanisms-and-transformers/self-attention-and-positional-encoding; Vaswani et al. 2017",
)


@exercise.truth
def truth(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    if min(num_positions, offset) < 0 or d_model < 1 or base <= 0:
        raise ValueError
    rows = []
    for position in range(offset, offset + num_positions):
        for column in range(d_model):
            angle = position * math.pow(base, -2 * (column // 2) / d_model)
            rows.append(math.cos(angle) if column % 2 else math.sin(angle))
    return torch.tensor(rows, dtype=torch.float64).reshape(num_positions, d_model)


@exercise.cases
def cases(draw):
    yield Case("5 positions of width 6", 5, 6)
    yield Case("an odd width", 4, 7)
    yield Case("width 1", 6, 1, edge=True)
    yield Case("starting at position 9", 3, 8, offset=9)
    yield Case("base 100", 7, 6, base=100.0)
    yield Case("float64", 4, 10, dtype=torch.float64)
    yield Case("position a million", 3, 8, offset=1_000_000)
    yield Case("no positions", 0, 4, edge=True)
    yield Case("hundreds of positions", 300, 5)
    start = int(draw.integers(20, 400, 1))
    yield Case("an odd width from a later position", 4, 9, offset=start, base=500.0, hidden=True)
    yield Case("float64, odd width, later position", 3, 5, offset=start, dtype=torch.float64, hidden=True)
    yield Case("another million", 2, 12, offset=3_000_000 + start, hidden=True)
    yield Case("width 2", 5, 2, base=7.0, hidden=True)
    yield Case("one position", 1, 3, offset=start, hidden=True)
    yield Case("base 1", 4, 5, base=1.0)
    yield Case("a base between 0 and 1", 3, 6, base=0.3, hidden=True)
    yield Case("a negative number of positions", -1, 4, raises=ValueError)
    yield Case("a negative offset", 3, 4, offset=-1, raises=ValueError)
    yield Case("width 0", 3, 0, raises=ValueError)
    yield Case("no positions and width 0", 0, 0, raises=ValueError)
    yield Case("base 0", 3, 4, base=0.0, raises=ValueError)
    yield Case("a negative base", 2, 3, base=-10.0, raises=ValueError, hidden=True)


@exercise.growth("positions", ops=0.0, peak=1.0)
def more_positions(draw, size):
    return Case(f"{size} positions", size, 10)


@exercise.growth("width", ops=0.0, peak=1.0)
def more_columns(draw, size):
    return Case(f"width {size}", 12, size)


def _checked(num_positions, d_model, offset, base):
    if num_positions < 0 or offset < 0 or d_model < 1 or base <= 0:
        raise ValueError


def _angles(num_positions, d_model, offset, base):
    _checked(num_positions, d_model, offset, base)
    positions = torch.arange(offset, offset + num_positions, dtype=torch.float64)
    return positions[:, None] * base ** -(torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)


def _woven(even, odd, d_model, dtype):
    return torch.stack([even, odd], -1).flatten(1)[:, :d_model].to(dtype)


@exercise.wrong("Sines and cosines take turns: column 2i is the sine and column 2i + 1 the cosine of the same angle.")
def sines_then_cosines(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    angles = _angles(num_positions, d_model, offset, base)
    return torch.cat([angles.sin(), angles[:, : d_model // 2].cos()], 1).to(dtype)


@exercise.wrong(
    "The columns 2i and 2i + 1 share one frequency, base ** (-2i / d_model): the exponent uses the pair's 2i."
)
def a_frequency_per_column(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    _checked(num_positions, d_model, offset, base)
    positions = torch.arange(offset, offset + num_positions, dtype=torch.float64)
    angles = positions[:, None] * base ** -(torch.arange(d_model, dtype=torch.float64) / d_model)
    even = torch.arange(d_model) % 2 == 0
    return torch.where(even, angles.sin(), angles.cos()).to(dtype)


@exercise.wrong(
    "The exponent is 2i / d_model for the pair i; with i / d_model the wavelengths grow only to sqrt(base)."
)
def half_the_exponent(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    angles = _angles(num_positions, d_model, offset, base**0.5)
    return _woven(angles.sin(), angles.cos(), d_model, dtype)


@exercise.wrong(
    "With an odd width there is one cosine column fewer than sine columns: cut the angles before cos.", caught_by="runs"
)
def odd_width_crashes(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    angles = _angles(num_positions, d_model, offset, base)
    table = torch.empty(num_positions, d_model, dtype=torch.float64)
    table[:, 0::2] = angles.sin()
    table[:, 1::2] = angles.cos()
    return table.to(dtype)


@exercise.wrong("Positions count from offset + 0: row 0 of the plain table is (0, 1, 0, 1, ...).")
def positions_from_one(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    return positional_encoding(num_positions, d_model, offset=offset + 1, base=base, dtype=dtype)


@exercise.wrong("In float32 the angle of a large position has lost its phase: compute angles in float64 and cast last.")
def float32_angles(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    _checked(num_positions, d_model, offset, base)
    positions = torch.arange(offset, offset + num_positions, dtype=dtype)
    frequencies = base ** -(torch.arange(0, d_model, 2, dtype=dtype) / d_model)
    angles = positions[:, None] * frequencies
    return _woven(angles.sin(), angles.cos(), d_model, dtype)


@exercise.wrong(
    "The frequencies were rounded to float32 before they met the positions: start arange in float64 already."
)
def float32_frequencies(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    _checked(num_positions, d_model, offset, base)
    positions = torch.arange(offset, offset + num_positions, dtype=torch.float64)
    angles = positions[:, None] * (base ** -(torch.arange(0, d_model, 2) / d_model)).double()
    return _woven(angles.sin(), angles.cos(), d_model, dtype)


@exercise.wrong("The even columns are the sines; row 0 starts with 0, not with 1.")
def cosines_first(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    angles = _angles(num_positions, d_model, offset, base)
    return _woven(angles.cos(), angles.sin(), d_model, dtype)


@exercise.wrong("`offset` shifts the positions: row 0 describes the position `offset`.")
def ignores_offset(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    _checked(num_positions, d_model, offset, base)
    return positional_encoding(num_positions, d_model, base=base, dtype=dtype)


@exercise.wrong("10000 is only the default: use the argument `base`.")
def ignores_base(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    _checked(num_positions, d_model, offset, base)
    return positional_encoding(num_positions, d_model, offset=offset, dtype=dtype)


@exercise.wrong("The result has the dtype that was asked for.", caught_by="dtype")
def always_float32(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    return positional_encoding(num_positions, d_model, offset=offset, base=base)


@exercise.wrong("The result was rounded to float32 on its way to the dtype that was asked for: cast once, at the end.")
def through_float32(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    return positional_encoding(num_positions, d_model, offset=offset, base=base).to(dtype)


@exercise.wrong("The exponent runs over 2i / d_model and never reaches 1; it is not spread evenly from 0 to 1.")
def exponents_up_to_one(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    _checked(num_positions, d_model, offset, base)
    positions = torch.arange(offset, offset + num_positions, dtype=torch.float64)
    angles = positions[:, None] * base ** -torch.linspace(0, 1, (d_model + 1) // 2, dtype=torch.float64)
    return _woven(angles.sin(), angles.cos(), d_model, dtype)


@exercise.wrong("An odd width was rounded up to an even one: the exponent divides by d_model itself.")
def rounds_the_width_up(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    _checked(num_positions, d_model, offset, base)
    even = d_model + d_model % 2
    return positional_encoding(num_positions, even, offset=offset, base=base, dtype=dtype)[:, :d_model].clone()


@exercise.wrong("An odd width was rounded down to an even one: the exponent divides by d_model itself.")
def rounds_the_width_down(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    _checked(num_positions, d_model, offset, base)
    positions = torch.arange(offset, offset + num_positions, dtype=torch.float64)
    exponents = torch.arange(0, d_model, 2, dtype=torch.float64) / max(d_model - d_model % 2, 1)
    angles = positions[:, None] * base**-exponents
    return _woven(angles.sin(), angles.cos(), d_model, dtype)


@exercise.wrong("The offset is added to the position, before the position meets the frequencies.")
def offset_added_to_the_angle(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    angles = _angles(num_positions, d_model, offset, base)
    angles = angles - angles[:1] + offset
    return _woven(angles.sin(), angles.cos(), d_model, dtype)


@exercise.wrong("A table of fixed length ends somewhere: compute just the rows from offset to offset + num_positions.")
def slices_a_fixed_table(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    _checked(num_positions, d_model, offset, base)
    return positional_encoding(1000, d_model, base=base, dtype=dtype)[offset : offset + num_positions].clone()


@exercise.wrong("offset alone says where to start: num_positions is the number of rows, not the last position.")
def offset_shortens_the_table(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    _checked(num_positions, d_model, offset, base)
    rows = max(num_positions - offset, 0)
    return positional_encoding(rows, d_model, offset=offset, base=base, dtype=dtype)


@exercise.wrong(
    "Raise ValueError for sizes that cannot be and for base <= 0, before anything else.", caught_by="errors"
)
def no_checks(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    num_positions, d_model, offset = abs(num_positions), max(d_model, 1), abs(offset)
    return positional_encoding(num_positions, d_model, offset=offset, base=abs(base) or 1.0, dtype=dtype)


@exercise.wrong(
    "Check the sizes before the early return for an empty table: d_model 0 is wrong there too.", caught_by="errors"
)
def empty_before_checks(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    if num_positions == 0:
        return torch.zeros(0, d_model, dtype=dtype)
    return positional_encoding(num_positions, d_model, offset=offset, base=base, dtype=dtype)


@exercise.wrong("A base of 0 or below has no powers to use: raise ValueError.", caught_by="errors")
def any_base(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    return positional_encoding(num_positions, d_model, offset=offset, base=base if base > 0 else 1.0, dtype=dtype)


@exercise.wrong("Every base above 0 is legal, 1 and less too: only base <= 0 is a ValueError.", caught_by="runs")
def only_bases_above_one(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    if base <= 1:
        raise ValueError
    return positional_encoding(num_positions, d_model, offset=offset, base=base, dtype=dtype)


@exercise.wrong(
    "A Python loop over positions: one column of positions times one row of frequencies gives all angles at once.",
    caught_by="growth",
)
def a_loop_over_positions(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    _checked(num_positions, d_model, offset, base)
    frequencies = base ** -(torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    table = torch.empty(num_positions, d_model, dtype=torch.float64)
    for row in range(num_positions):
        table[row, 0::2] = (frequencies * (offset + row)).sin()
        table[row, 1::2] = (frequencies[: d_model // 2] * (offset + row)).cos()
    return table.to(dtype)


@exercise.wrong("A Python loop over columns: work on all frequencies at once.", caught_by="growth")
def a_loop_over_columns(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    _checked(num_positions, d_model, offset, base)
    positions = torch.arange(offset, offset + num_positions, dtype=torch.float64)
    table = torch.empty(num_positions, d_model, dtype=torch.float64)
    for column in range(d_model):
        angles = positions * base ** (-2 * (column // 2) / d_model)
        table[:, column] = angles.cos() if column % 2 else angles.sin()
    return table.to(dtype)


@exercise.right("points on the unit circle as complex numbers")
def by_complex_numbers(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    angles = _angles(num_positions, d_model, offset, base)
    circle = torch.view_as_real(torch.polar(torch.ones_like(angles), angles)).flip(-1)
    return circle.flatten(1)[:, :d_model].to(dtype)


@exercise.right("a cosine is a sine a quarter turn later")
def by_phase_shift(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    _checked(num_positions, d_model, offset, base)
    columns = torch.arange(d_model)
    frequencies = torch.exp((columns - columns % 2).double() * (-math.log(base) / d_model))
    positions = offset + torch.arange(num_positions, dtype=torch.float64)
    return torch.sin(torch.outer(positions, frequencies) + math.pi / 2 * (columns % 2).double()).to(dtype)


@exercise.right("stacked and flattened")
def by_stacking(num_positions, d_model, *, offset=0, base=10000.0, dtype=torch.float32):
    angles = _angles(num_positions, d_model, offset, base)
    return _woven(angles.sin(), angles.cos(), d_model, dtype)
