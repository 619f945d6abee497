"""The estimate: arithmetic on a breakdown. How good it is, `make bench-budgets` measures."""

import subprocess
import sys

import pytest
from bench.roofline import Sample, ordered, ranks, spearman

from grader.roofline import A100, CPU, GPUS, H100, T4, Card, estimate

ROUND = Card("round", launch=1e-6, bandwidth=1e9, peak=1e12)


@pytest.mark.parametrize(
    ("moved", "flops", "seconds"),
    [
        (8, 8, 1e-6),  # the launch
        (10_000, 8, 1e-5),  # the traffic
        (8, 10**9, 1e-3),  # the arithmetic
        (0, 0, 1e-6),
    ],
)
def test_an_operation_takes_the_longest_of_three(moved, flops, seconds):
    assert ROUND.seconds(moved, flops) == pytest.approx(seconds)


def test_operations_add_up():
    rows = [("exp", 8, 8, 3), ("mm", 10_000, 8, 2)]
    assert estimate(rows, ROUND) == pytest.approx(3e-6 + 2e-5)
    assert estimate([], ROUND) == 0


def test_the_cards_rank_as_their_data_sheets_do():
    assert GPUS == (T4, A100, H100)
    assert T4.bandwidth < A100.bandwidth < H100.bandwidth
    assert T4.peak < A100.peak < H100.peak
    assert all(CPU.peak < card.peak for card in GPUS)
    large = [("mm", 10**8, 10**12, 1)]
    assert estimate(large, T4) > estimate(large, A100) > estimate(large, H100)


def test_it_needs_no_torch():
    code = "import sys, grader.roofline; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_equal_values_share_the_mean_of_their_ranks():
    assert list(ranks([5, 1, 5, 9])) == [2.5, 1, 2.5, 4]
    assert spearman([1, 2, 3, 4], [10, 100, 1000, 1001]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)


def test_pairs_are_of_one_call_and_far_enough_apart():
    found = [Sample(task, 2, "x", (), seconds) for task, seconds in (("a", 1.0), ("a", 2.0), ("a", 8.0), ("b", 100.0))]
    assert ordered(found, [1, 2, 3, 0], 1.5) == (3, 3)
    assert ordered(found, [1, 2, 3, 0], 3.0) == (2, 2)
    assert ordered(found, [3, 2, 1, 0], 10.0) == (0, 0)
    assert ordered(found, [1, 1, 1, 0], 1.5) == (0, 3)
