"""How close is close enough, by dtype and length."""

import pytest
import torch

from grader.tolerance import HALF, Error, Rounding, difference, within


@pytest.mark.parametrize("dtype", HALF)
def test_sixteen_bits_do_not_allow_errors_of_the_values_own_size(dtype):
    unit = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}[dtype]
    limit = Rounding(terms=100_000).limit(dtype)
    assert limit == Rounding(terms=16).limit(dtype)
    assert limit.rms == pytest.approx(16 * unit)


def test_longer_sums_may_err_more_in_float32():
    short, long = (Rounding(terms=n).limit(torch.float32) for n in (1, 10_000))
    assert long.rms == pytest.approx(100 * short.rms)
    assert long.max == pytest.approx(4 * long.rms)


def test_a_bfloat16_result_that_is_a_tenth_off_is_wrong():
    wanted = torch.linspace(1, 2, 5000, dtype=torch.float64)
    limit = Rounding(Error(2.0**-9, 2.0**-9), terms=5000).limit(torch.bfloat16)
    assert within(difference(wanted.bfloat16(), wanted), limit)
    assert not within(difference((1.1 * wanted).bfloat16(), wanted), limit)
