"""How long work takes on a given processor, estimated from its counts. Arithmetic only; nothing is timed here.

Each operation takes the longest of three: its launch, its traffic with memory, its arithmetic. Caches, overlap,
occupancy and the host's own Python are left out, so an estimate orders implementations that are far apart (some three
times and more) and says nothing about a few percent.

Memory bandwidth and peak of float32 outside of tensor cores are those of NVIDIA's data sheets: T4 (320 GB/s,
8.1 TFLOPS), A100 40 GB (1,555 GB/s, 19.5 TFLOPS), H100 SXM (3.35 TB/s, 67 TFLOPS). What one operation of eager PyTorch
costs at least, the host's dispatch and the launch, is of the order of 5 microseconds on all of them. The CPU entry is
one core of an ordinary server, in round figures of what it reaches on small tensors; its peak is nearer to that of
elementwise functions than of large matrix products.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Row = tuple[str, int, int, int]
"""Operations alike: (kind, bytes moved by each, floating-point operations of each, how many)."""


@dataclass(frozen=True, slots=True)
class Card:
    """A processor: seconds per launch, bytes per second, float32 operations per second."""

    name: str
    launch: float
    bandwidth: float
    peak: float

    def seconds(self, moved: int, flops: int) -> float:
        """Estimate one operation."""
        return max(self.launch, moved / self.bandwidth, flops / self.peak)


T4 = Card("T4", 5e-6, 320e9, 8.1e12)
A100 = Card("A100", 5e-6, 1555e9, 19.5e12)
H100 = Card("H100", 5e-6, 3350e9, 67e12)
GPUS = (T4, A100, H100)
CPU = Card("CPU", 4e-6, 5e9, 2e9)


def estimate(rows: Iterable[Row], card: Card) -> float:
    """Estimate the seconds that a breakdown of operations takes on a card."""
    return sum(many * card.seconds(moved, flops) for _, moved, flops, many in rows)
