"""Two-dimensional cross-correlation."""

import torch
import torch.nn.functional as F
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.convolution import FORBID


def corr2d(X: Tensor, K: Tensor) -> Tensor:
    """Slide a kernel over an image and take the weighted sum under it: the cross-correlation.

    The kernel is not flipped, and it stays inside the image.

    Args:
        X: image, float, shape (H, W); any memory layout.
        K: kernel, of X's dtype, shape (h, w) with 1 <= h <= H and 1 <= w <= W.

    Returns:
        Y of shape (H - h + 1, W - w + 1), of X's dtype, in memory of its own:
        Y[i, j] = sum over a, b of X[i + a, j + b] * K[a, b].
        Differentiable in X and K. The number of torch operations does not depend on H and W.

    Raises:
        ValueError: X or K is not 2-D, K is empty, or K is larger than X along an axis.

    Example:
        >>> corr2d(torch.arange(9.0).reshape(3, 3), torch.arange(4.0).reshape(2, 2))
        tensor([[19., 25.],
                [37., 43.]])
    """
    if X.ndim != 2 or K.ndim != 2:
        raise ValueError(f"X and K must be 2-D, got {X.ndim}-D and {K.ndim}-D")
    (H, W), (h, w) = X.shape, K.shape
    if not (1 <= h <= H and 1 <= w <= W):
        raise ValueError(f"a kernel of {h} x {w} does not fit into an image of {H} x {W}")
    windows = X.unfold(0, h, 1).unfold(1, w, 1)  # a view: windows[i, j] is the h x w patch at (i, j)
    return (windows * K).sum((2, 3))


exercise = Exercise(
    corr2d,
    points=5,
    gradients=("X", "K"),
    forbid=FORBID,
    hints=(
        "One cell K[a, b] of the kernel meets all pixels X[i + a, j + b] at once: they are a slice of X.",
        "Either add up h * w shifted slices of X, or make all windows a view with Tensor.unfold on both axes.",
        "X.unfold(0, h, 1).unfold(1, w, 1) has shape (H - h + 1, W - w + 1, h, w); multiply by K and sum the last two.",
    ),
    source="D2L convolutional-neural-networks/conv-layer",
)


@exercise.truth
def truth(X, K):
    return F.conv2d(X[None, None], K[None, None])[0, 0]


@exercise.cases
def cases(draw):
    yield Case("the book's 3x3 image", torch.arange(9.0).reshape(3, 3), torch.arange(4.0).reshape(2, 2))
    yield Case("a kernel that is not square", draw.normal(7, 6), draw.normal(2, 4), cost=Cost(ops=3 * 8 + 5))
    yield Case("a tall kernel", draw.normal(6, 9), draw.normal(5, 2), cost=Cost(ops=3 * 10 + 5))
    stripes = torch.ones(5, 8)
    stripes[:, 2:6] = 0
    yield Case("edge detector [1, -1]", stripes, torch.tensor([[1.0, -1.0]]))
    yield Case("edge detector, transposed", stripes.T.contiguous(), torch.tensor([[1.0], [-1.0]]))
    yield Case("a kernel as large as the image", draw.normal(3, 4), draw.normal(3, 4), edge=True)
    yield Case("a 1x1 kernel", draw.normal(4, 5), draw.normal(1, 1), edge=True)
    yield Case("one row", draw.normal(1, 7), draw.normal(1, 3), edge=True)
    yield Case("a transposed image", draw.normal(8, 5).T, draw.normal(3, 2))
    yield Case("float64", draw.normal(6, 5, dtype=torch.float64), draw.normal(2, 3, dtype=torch.float64))
    yield Case("tiny values", 1e-3 * draw.normal(5, 7), draw.normal(3, 2), hidden=True)
    yield Case("a large offset", draw.normal(9, 6) + 1e4, draw.normal(2, 5), hidden=True)
    yield Case("a transposed kernel", draw.normal(6, 8), draw.normal(5, 3).T, hidden=True)
    yield Case("a larger image", draw.normal(23, 31), draw.normal(4, 7), hidden=True)
    yield Case("an image of one channel, 3-D", draw.normal(1, 5, 6), draw.normal(2, 2), raises=ValueError)
    yield Case("a kernel given as a vector", draw.normal(5, 6), draw.normal(3), raises=ValueError)
    yield Case("a 4-D kernel", draw.normal(5, 6), draw.normal(1, 1, 2, 2), raises=ValueError, hidden=True)
    yield Case("a kernel too tall", draw.normal(3, 6), draw.normal(4, 2), raises=ValueError)
    yield Case("a kernel too wide", draw.normal(6, 3), draw.normal(2, 4), raises=ValueError)
    yield Case("a kernel much too wide", draw.normal(6, 3), draw.normal(2, 8), raises=ValueError, hidden=True)
    yield Case("a kernel without rows", draw.normal(4, 5), torch.zeros(0, 2), raises=ValueError)
    yield Case("a kernel without columns", draw.normal(4, 5), torch.zeros(2, 0), raises=ValueError, hidden=True)
    yield Case("no image", torch.zeros(0, 5), draw.normal(1, 2), raises=ValueError, hidden=True)


@exercise.growth("rows", sizes=(8, 16), ops=0)
def more_rows(draw, size):
    return Case(f"{size} rows", draw.normal(size, 5), draw.normal(3, 2))


@exercise.growth("columns", sizes=(8, 16), ops=0)
def more_columns(draw, size):
    return Case(f"{size} columns", draw.normal(4, size), draw.normal(3, 2))


def checked(X, K):
    """Raise what the contract names."""
    if X.ndim != 2 or K.ndim != 2 or K.numel() == 0 or K.size(0) > X.size(0) or K.size(1) > X.size(1):
        raise ValueError
    return X.size(0) - K.size(0) + 1, X.size(1) - K.size(1) + 1


def by_cells(X, K, *, start=0.0):
    """Add up one shifted slice of X per kernel cell."""
    oh, ow = checked(X, K)
    total = start
    for a in range(K.size(0)):
        for b in range(K.size(1)):
            total = total + X[a : a + oh, b : b + ow] * K[a, b]
    return total


@exercise.wrong(
    "One torch call per output pixel is slow: loop over the few kernel cells, or make the windows a view.",
    caught_by="growth",
)
def loop_over_outputs(X, K):
    oh, ow = checked(X, K)
    h, w = K.shape
    rows = [torch.stack([(X[i : i + h, j : j + w] * K).sum() for j in range(ow)]) for i in range(oh)]
    return torch.stack(rows)


@exercise.wrong(
    "Every write into Y is a node of the graph: slow, though right. Compute whole slices at once and write nothing.",
    caught_by="growth",
)
def writes_row_by_row(X, K):
    oh, ow = checked(X, K)
    Y = X.new_zeros(oh, ow)
    for i in range(oh):
        Y[i] = (X[i : i + K.size(0)].unfold(1, K.size(1), 1) * K.unsqueeze(1)).sum((0, 2))
    return Y


@exercise.wrong("Deep learning libraries correlate: the kernel is not flipped.")
def flipped(X, K):
    return corr2d(X, K.flip(0, 1)) if K.ndim == 2 else corr2d(X, K)


@exercise.wrong("The last window still fits: there are H - h + 1 of them, not H - h.", caught_by="shape")
def one_window_short(X, K):
    return corr2d(X, K)[: max(X.size(0) - K.size(0), 1), : max(X.size(1) - K.size(1), 1)].clone()


@exercise.wrong("torch.zeros makes float32 whatever X is: use X.new_zeros or zeros_like.", caught_by="dtype")
def zeros_without_dtype(X, K):
    oh, ow = checked(X, K)
    Y = torch.zeros(oh, ow)
    for a in range(K.size(0)):
        for b in range(K.size(1)):
            Y += X[a : a + oh, b : b + ow] * K[a, b]
    return Y


@exercise.wrong("item() makes the kernel a number without a graph: it would never learn.", caught_by="gradients")
def kernel_as_numbers(X, K):
    oh, ow = checked(X, K)
    cells = [(a, b) for a in range(K.size(0)) for b in range(K.size(1))]
    return sum(X[a : a + oh, b : b + ow] * K[a, b].item() for a, b in cells)


@exercise.wrong("`.data` and detach() cut the graph: no gradient flows back into the image.", caught_by="gradients")
def image_detached(X, K):
    return corr2d(X.detach(), K)


@exercise.wrong("torch.no_grad() or a fresh tensor at the end leaves nothing to learn from.", caught_by="gradients")
def no_graph_at_all(X, K):
    return corr2d(X.detach(), K.detach())


@exercise.wrong("Rows of K go with rows of X: K[a, b] meets X[i + a, j + b].")
def kernel_transposed(X, K):
    checked(X, K)
    return corr2d(X, K.T.reshape(K.shape))


@exercise.wrong("Rows come first in the result: i runs over H - h + 1 rows, j over W - w + 1 columns.")
def output_transposed(X, K):
    return corr2d(X, K).T.contiguous()


@exercise.wrong("The weighted sum is not a mean: do not divide by the number of cells.")
def mean_for_sum(X, K):
    return corr2d(X, K) / max(K.numel(), 1)


@exercise.wrong("No padding: the window stays inside the image, so the result is smaller than X.", caught_by="shape")
def same_size(X, K):
    checked(X, K)
    h, w = K.shape
    return corr2d(F.pad(X, ((w - 1) // 2, w // 2, (h - 1) // 2, h // 2)), K)


@exercise.wrong("Taking the largest belongs to pooling; a correlation adds the products up.")
def maximum_of_products(X, K):
    checked(X, K)
    return (X.unfold(0, K.size(0), 1).unfold(1, K.size(1), 1) * K).amax((2, 3))


@exercise.wrong("h and w of K are different things: a loop over h for both axes works for square kernels only.")
def square_kernels_only(X, K):
    checked(X, K)
    h = K.size(0)
    if h > X.size(1):
        raise ValueError
    return (X.unfold(0, h, 1).unfold(1, h, 1) * K[:, :1]).sum((2, 3))


@exercise.wrong("Look at both axes: a kernel that is too wide does not fit either.", caught_by="errors")
def width_unchecked(X, K):
    if X.ndim == K.ndim == 2 and 1 <= K.size(0) <= X.size(0) and K.size(1) > X.size(1):
        return X.new_zeros(X.size(0) - K.size(0) + 1, 0)
    return corr2d(X, K)


@exercise.wrong("Look at both axes: a kernel that is too tall does not fit either.", caught_by="errors")
def height_unchecked(X, K):
    if X.ndim == K.ndim == 2 and 1 <= K.size(1) <= X.size(1) and K.size(0) > X.size(0):
        return X.new_zeros(0, X.size(1) - K.size(1) + 1)
    return corr2d(X, K)


@exercise.wrong("An empty kernel has no weighted sum: ValueError, not a picture of zeros.", caught_by="errors")
def empty_kernel_allowed(X, K):
    if X.ndim == K.ndim == 2 and K.numel() == 0 and X.numel():
        return X.new_zeros(X.size(0) - K.size(0) + 1, X.size(1) - K.size(1) + 1)
    return corr2d(X, K)


@exercise.wrong(
    "X and K are matrices here: other ranks are a ValueError, not something to squeeze.", caught_by="errors"
)
def squeezes(X, K):
    X, K = X.squeeze(), torch.atleast_2d(K.squeeze())
    return corr2d(torch.atleast_2d(X), K)


@exercise.wrong(
    "An oversized kernel ends in torch's own RuntimeError; the contract promises a ValueError.", caught_by="errors"
)
def errors_left_to_torch(X, K):
    (H, W), (h, w) = X.shape, K.shape
    return (X.unfold(0, h, 1).unfold(1, w, 1) * K).sum((2, 3))


@exercise.wrong("F.conv2d is what this exercise rebuilds.", caught_by="forbidden")
def the_library(X, K):
    checked(X, K)
    return F.conv2d(X[None, None], K[None, None])[0, 0]


@exercise.wrong("X belongs to the caller: multiply into a new tensor, not in place.", caught_by="inputs")
def scales_the_image(X, K):
    checked(X, K)
    result = corr2d(X, K)
    with torch.no_grad():
        if not any(step == 0 for step in X.stride()):
            X.mul_(K[0, 0])
    return result


@exercise.wrong("as_strided must use the strides that X has: (W, 1) holds for a packed image only.")
def strides_of_a_packed_image(X, K):
    oh, ow = checked(X, K)
    W = X.size(1)
    packed = X if X.untyped_storage().nbytes() >= X.numel() * X.itemsize else X.contiguous()
    windows = packed.as_strided((oh, ow, *K.shape), (W, 1, W, 1))
    return (windows * K).sum((2, 3))


@exercise.wrong("Casting to float32 on the way loses half of the digits of a float64 image.")
def float32_on_the_way(X, K):
    return corr2d(X.float(), K.float()).to(X.dtype)


@exercise.wrong("The contract promises a ValueError; assert raises an AssertionError.", caught_by="errors")
def asserts(X, K):
    assert X.ndim == K.ndim == 2
    assert K.numel() > 0
    assert K.size(0) <= X.size(0)
    assert K.size(1) <= X.size(1)
    return corr2d(X, K)


@exercise.right("one shifted slice per kernel cell")
def shifted_slices(X, K):
    return by_cells(X, K)


@exercise.right("windows as rows of a matrix")
def matrix_product(X, K):
    oh, ow = checked(X, K)
    h, w = K.shape
    return (X.unfold(0, h, 1).unfold(1, w, 1).reshape(oh * ow, h * w) @ K.reshape(h * w)).reshape(oh, ow)


@exercise.right("as_strided and einsum")
def strided_windows(X, K):
    oh, ow = checked(X, K)
    (sh, sw), (h, w) = X.stride(), K.shape
    windows = X.as_strided((oh, ow, h, w), (sh, sw, sh, sw), X.storage_offset())
    return torch.einsum("ijab,ab->ij", windows, K)
