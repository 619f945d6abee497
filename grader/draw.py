"""Seeded random inputs for cases. One `Draw` never touches torch's global generator."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


class Draw:
    """A stream of random inputs that depends only on a seed and a key.

    Args:
        seed: the instructor's seed.
        key: what the stream is for (an exercise's id), so that exercises are independent of one another.
    """

    def __init__(self, seed: int, key: str = "") -> None:
        digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
        self._source = torch.Generator().manual_seed(int.from_bytes(digest[:6], "big"))

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw N(0, 1) entries of the given shape."""
        return torch.randn(shape, generator=self._source).to(dtype)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw entries from [low, high)."""
        return (low + (high - low) * torch.rand(shape, generator=self._source)).to(dtype)

    def integers(self, low: int, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        """Draw integers from [low, high)."""
        return torch.randint(low, high, shape, generator=self._source).to(dtype)

    def boolean(self, *shape: int, p: float = 0.5) -> Tensor:
        """Draw True with probability `p`."""
        return torch.rand(shape, generator=self._source) < p

    def permutation(self, n: int) -> Tensor:
        """Draw a permutation of 0 ... n - 1."""
        return torch.randperm(n, generator=self._source)

    def seed(self) -> int:
        """Draw a seed."""
        return int(torch.randint(0, 2**31 - 1, (1,), generator=self._source))

    def generator(self) -> torch.Generator:
        """Make a freshly seeded CPU generator, to be passed as an argument."""
        return torch.Generator().manual_seed(self.seed())
