"""Average pooling to a given output size."""

import torch
import torch.nn.functional as F
from torch import Tensor

from grader import Case, Cost, Exercise


def adaptive_avg_pool2d(X: Tensor, output_size: int | tuple[int, int]) -> Tensor:
    """Average each channel over a grid of bins, so that the output has a given size.

    Output row i averages the input rows from floor(i * H / oh) up to, not including, ceil((i + 1) * H / oh);
    columns likewise. So bins may differ in size and share rows where oh does not divide H, and rows are
    used more than once where oh > H.

    Args:
        X: images `(N, C, H, W)`, float, finite; N = 0 gives an empty result.
        output_size: (oh, ow), each >= 1; an int n means (n, n). (1, 1) is global average pooling.

    Returns:
        New tensor `(N, C, oh, ow)`, also for size (1, 1). Very large pixels must not spoil bins that do not
        contain them.

    Raises:
        ValueError: `X` is not 4-D, H or W is 0, or an output size is < 1.

    Example:
        >>> adaptive_avg_pool2d(torch.arange(7.0).reshape(1, 1, 1, 7), (1, 3))
        tensor([[[[1., 3., 5.]]]])
    """
    size = (output_size, output_size) if isinstance(output_size, int) else output_size
    if X.ndim != 4 or 0 in X.shape[2:] or min(size) < 1:
        raise ValueError(f"X must be (N, C, H, W) with pixels and the output size >= 1, got {X.shape} and {size}")
    rows, columns = (_bins(n, m, X) for n, m in zip(X.shape[2:], size, strict=True))
    return rows @ X @ columns.T


def _bins(n: int, m: int, like: Tensor) -> Tensor:
    """Return the matrix (m, n) whose row i averages the entries of bin i."""
    i = torch.arange(m, device=like.device)[:, None]
    position = torch.arange(n, device=like.device)
    inside = (position >= i * n // m) & (position < ((i + 1) * n + m - 1) // m)
    member = inside.to(like.dtype)
    return member / member.sum(1, keepdim=True)


exercise = Exercise(
    adaptive_avg_pool2d,
    points=8,
    gradients=("X",),
    cost=Cost(ops=40),
    forbid=("*pool*", "*Pool*", "im2col*", "Unfold", "interpolate", "*upsample*", "grid_sample*", "*Upsample*"),
    hints=(
        "A bin is an average of some rows and some columns. Can one multiplication average all row bins at once?",
        "Make a matrix (oh, H) for the rows: 1 / (length of bin i) where row r belongs to bin i, else 0. "
        "Compare arange(H) with the start and the end of every bin; -(-a // b) is ceil(a / b) for ints.",
        "inside = (r >= i * H // oh) & (r < ((i + 1) * H + oh - 1) // oh) with i as a column; A = inside / "
        "inside.sum(1, keepdim=True) in the dtype of X; the result is A_rows @ X @ A_columns.T.",
    ),
    source="D2L convolutional-modern/nin, googlenet, resnet",
)


@exercise.truth
def truth(X, output_size):
    return F.adaptive_avg_pool2d(X, output_size)


def near_and_far(candidate, X, output_size):
    y = candidate(X, output_size)
    return {"bins with the bright pixel": y[:, :, :1, :1], "other rows": y[:, :, 1:], "other columns": y[:, :, :, 1:]}


@exercise.cases
def cases(draw):
    yield Case("global average", draw.normal(3, 2, 5, 7), (1, 1))
    yield Case("7 rows to 3", draw.normal(2, 3, 7, 6), (3, 2), cost=True)
    yield Case("sizes that divide", draw.normal(2, 2, 9, 8), (3, 4))
    yield Case("9 rows to 4, 8 columns to 3", draw.normal(2, 3, 9, 8), (4, 3))
    yield Case("5 rows to 9", draw.normal(2, 1, 5, 3), (9, 7))
    yield Case("one number for both", draw.normal(1, 3, 10, 7), 4)
    yield Case("one row, many columns", draw.normal(2, 2, 6, 11), (1, 4))
    yield Case("the same size", draw.normal(2, 3, 4, 5), (4, 5), edge=True)
    bright = draw.normal(2, 3, 9, 8)
    bright[:, :, 0, 0] = 1e6
    yield Case("one very bright pixel", bright, (4, 3), probe=near_and_far, edge=True)
    yield Case("no images", draw.normal(0, 3, 5, 4), (2, 3), edge=True)
    yield Case("no channels", draw.normal(2, 0, 5, 4), (2, 3), grad=False, edge=True)
    yield Case("one pixel", draw.normal(2, 3, 1, 1), (2, 3), edge=True)
    last = draw.normal(2, 3, 7, 5).to(memory_format=torch.channels_last)
    yield Case("channels last", last, (2, 4), edge=True)
    yield Case("float64", draw.normal(2, 2, 6, 7, dtype=torch.float64), (4, 2), edge=True)
    yield Case("tiny values", 1e-3 * draw.normal(2, 4, 8, 13), (5, 4), hidden=True)
    yield Case("large values", 1e4 + 100 * draw.normal(3, 2, 11, 6), (3, 5), hidden=True)
    yield Case("13 rows to 6", draw.normal(1, 2, 13, 5), (6, 8), hidden=True)
    yield Case("26 rows to 22, 4 columns to 28", draw.normal(2, 1, 26, 4), (22, 28), hidden=True)
    yield Case("global average of rectangles", draw.normal(2, 5, 3, 9), 1, hidden=True)
    dark = draw.normal(1, 2, 7, 12)
    dark[:, :, 0, 0] = -1e6
    yield Case("one very dark pixel", dark, (3, 5), probe=near_and_far, edge=True, hidden=True)
    image = draw.normal(2, 3, 4, 5)
    yield Case("three axes", image[0], (2, 2), raises=ValueError)
    yield Case("output size 0", image, (0, 2), raises=ValueError)
    yield Case("no rows", image[:, :, :0], (2, 2), raises=ValueError)
    yield Case("no columns, global average", image[..., :0], 1, raises=ValueError)
    yield Case("negative output size", image, (2, -1), raises=ValueError, hidden=True)
    yield Case("two axes", image[0, 0], 1, raises=ValueError, hidden=True)


@exercise.growth("output size", sizes=(6, 12), ops=0.0)
def more_bins(draw, size):
    return Case(f"{size} bins", draw.normal(2, 2, 17, 19), (size, size + 1))


@exercise.growth("images and channels", sizes=(4, 8), ops=0.0)
def more_images(draw, size):
    return Case(f"{size} images", draw.normal(size, size + 1, 6, 5), (4, 3))


@exercise.growth("image size", sizes=(12, 24), ops=0.0)
def larger_images(draw, size):
    return Case(f"{size} pixels", draw.normal(1, 2, size, size + 1), (5, 7))


def check_inputs(X, output_size):
    size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    if X.ndim != 4 or 0 in X.shape[2:] or min(size) < 1:
        raise ValueError
    return size


def pooled_with(X, output_size, edges):
    """Average with bins of other edges: `edges(i, n, m)` is (start, end) of bin i, both in 0 ... n."""
    size = check_inputs(X, output_size)
    matrices = []
    for n, m in zip(X.shape[2:], size, strict=True):
        matrix = torch.zeros(m, n, dtype=X.dtype)
        for i in range(m):
            start, end = edges(i, n, m)
            matrix[i, start:end] = 1 / max(end - start, 1)
        matrices.append(matrix)
    return matrices[0] @ X @ matrices[1].T


def floor_ceil(i, n, m):
    return i * n // m, -(-(i + 1) * n // m)


@exercise.wrong(
    "Bins of H // oh rows work only where oh divides H: bin i runs from floor(i * H / oh) to ceil((i + 1) * H / oh)."
)
def equal_bins(X, output_size):
    return pooled_with(
        X, output_size, lambda i, n, m: (i * max(n // m, 1) % n, i * max(n // m, 1) % n + max(n // m, 1))
    )


@exercise.wrong("The end of a bin is rounded up, so neighbours may share a row.")
def end_rounded_down(X, output_size):
    return pooled_with(X, output_size, lambda i, n, m: (i * n // m, max((i + 1) * n // m, i * n // m + 1)))


@exercise.wrong("The start of a bin is rounded down, so neighbours may share a row.")
def start_rounded_up(X, output_size):
    def edges(i, n, m):
        start, end = floor_ceil(i, n, m)
        return min(-(-i * n // m), end - 1), end

    return pooled_with(X, output_size, edges)


@exercise.wrong("Bins differ in size: divide each by its own number of pixels.")
def one_divisor(X, output_size):
    size = check_inputs(X, output_size)
    sums = adaptive_avg_pool2d(X, output_size)
    rows, columns = (
        torch.tensor([(floor_ceil(i, n, m)[1] - floor_ceil(i, n, m)[0]) * m / n for i in range(m)], dtype=X.dtype)
        for n, m in zip(X.shape[2:], size, strict=True)
    )
    return sums * rows[:, None] * columns


@exercise.wrong("Global pooling averages over the pixels of each channel of each image, not over everything.")
def one_mean_for_all(X, output_size):
    size = check_inputs(X, output_size)
    if size != (1, 1) or not X.numel():
        return adaptive_avg_pool2d(X, output_size)
    return X.mean().expand(*X.shape[:2], 1, 1).clone()


@exercise.wrong("Keep the two axes of size 1: the result is (N, C, 1, 1).", caught_by="shape")
def axes_dropped(X, output_size):
    size = check_inputs(X, output_size)
    return X.mean((2, 3)) if size == (1, 1) else adaptive_avg_pool2d(X, output_size)


@exercise.wrong(
    "Differences of running sums lose small numbers beside a large one: multiply by an averaging matrix instead."
)
def running_sums(X, output_size):
    size = check_inputs(X, output_size)
    sums = F.pad(X.cumsum(2).cumsum(3), (1, 0, 1, 0))
    areas = torch.ones((), dtype=X.dtype)
    for axis, (n, m) in enumerate(zip(X.shape[2:], size, strict=True), start=2):
        i = torch.arange(m)
        start, end = i * n // m, ((i + 1) * n + m - 1) // m
        sums = sums.index_select(axis, end) - sums.index_select(axis, start)
        areas = areas * (end - start).to(X.dtype).reshape(-1, *[1] * (3 - axis))
    return sums / areas


@exercise.wrong("The output size is (height, width); here it was read as (width, height).")
def size_turned(X, output_size):
    size = check_inputs(X, output_size)
    result = adaptive_avg_pool2d(X, size[::-1])
    return result


@exercise.wrong("The bins of the columns follow from W and ow, not from H and oh.")
def rows_for_both(X, output_size):
    size = check_inputs(X, output_size)
    return adaptive_avg_pool2d(X, (size[0], size[0]))


@exercise.wrong("Averages, not sums: divide by the number of pixels in the bin.")
def sums_of_bins(X, output_size):
    size = check_inputs(X, output_size)
    counts = [
        torch.tensor([float(floor_ceil(i, n, m)[1] - floor_ceil(i, n, m)[0]) for i in range(m)], dtype=X.dtype)
        for n, m in zip(X.shape[2:], size, strict=True)
    ]
    return adaptive_avg_pool2d(X, output_size) * counts[0][:, None] * counts[1]


@exercise.wrong("Take the mean of each bin, not its maximum.")
def maximum_of_bins(X, output_size):
    check_inputs(X, output_size)
    return F.adaptive_max_pool2d(X, output_size) if X.numel() else adaptive_avg_pool2d(X, output_size)


@exercise.wrong("Picking one pixel of each bin is resizing, not averaging.")
def nearest_pixel(X, output_size):
    return pooled_with(X, output_size, lambda i, n, m: (i * n // m, i * n // m + 1))


@exercise.wrong(
    "A loop over the bins costs operations for every one of them: average all of them at once.", caught_by="growth"
)
def loop_over_bins(X, output_size):
    oh, ow = check_inputs(X, output_size)
    height, width = X.shape[2:]
    rows = []
    for i in range(oh):
        band = X[:, :, slice(*floor_ceil(i, height, oh))]
        rows.append(torch.stack([band[..., slice(*floor_ceil(j, width, ow))].mean((2, 3)) for j in range(ow)], -1))
    return torch.stack(rows, -2)


@exercise.wrong("A matrix of float32 does not multiply float64 images: make it with the dtype of X.", caught_by="runs")
def float32_matrix(X, output_size):
    size = check_inputs(X, output_size)
    rows, columns = (_bins(n, m, torch.zeros(())) for n, m in zip(X.shape[2:], size, strict=True))
    return rows @ X @ columns.T


@exercise.wrong("The same size means the same values, but in a new tensor.", caught_by="inputs")
def image_itself(X, output_size):
    size = check_inputs(X, output_size)
    return X if size == tuple(X.shape[2:]) else adaptive_avg_pool2d(X, output_size)


@exercise.wrong("Images without rows or columns, other ranks and sizes below 1 are a ValueError.", caught_by="errors")
def nothing_checked(X, output_size):
    size = (output_size, output_size) if isinstance(output_size, int) else output_size
    rows, columns = (_bins(n, max(m, 1), X) for n, m in zip(X.shape[-2:], size, strict=True))
    return rows @ X @ columns.T


@exercise.wrong(
    "i * (H / oh) in floating point can miss a whole number by a hair; floor and ceil of integers are exact."
)
def edges_in_floating_point(X, output_size):
    size = check_inputs(X, output_size)

    def edges(i, n, m):
        scale = torch.tensor(n / m)
        return int((i * scale).floor()), min(int(((i + 1) * scale).ceil()), n)

    return pooled_with(X, size, edges)


@exercise.wrong("More output rows than input rows is allowed: input rows are then used more than once.")
def never_larger(X, output_size):
    size = check_inputs(X, output_size)
    return adaptive_avg_pool2d(X, tuple(min(m, n) for m, n in zip(size, X.shape[2:], strict=True)))


@exercise.wrong("A stride of H // oh and one window size fit only some sizes: each bin has its own start and end.")
def one_kernel_for_all_bins(X, output_size):
    size = check_inputs(X, output_size)
    strides = [n // m for n, m in zip(X.shape[2:], size, strict=True)]
    kernels = [n - (m - 1) * s for n, m, s in zip(X.shape[2:], size, strides, strict=True)]
    return X.unfold(2, kernels[0], max(strides[0], 1)).unfold(3, kernels[1], max(strides[1], 1)).mean((-1, -2))


@exercise.wrong(
    "Running sums along one axis after the other lose small numbers beside a large one: average by a matrix."
)
def running_sums_of_each_axis(X, output_size):
    size = check_inputs(X, output_size)
    for axis, m in zip((2, 3), size, strict=True):
        n, i = X.shape[axis], torch.arange(m)
        start, end = i * n // m, ((i + 1) * n + m - 1) // m
        sums = torch.cat([torch.zeros_like(X.narrow(axis, 0, 1)), X], axis).cumsum(axis)
        lengths = (end - start).reshape(-1, *[1] * (3 - axis))
        X = (sums.index_select(axis, end) - sums.index_select(axis, start)) / lengths
    return X


@exercise.wrong(
    "float64 images are averaged in float64: give the matrices the dtype of X, not the images that of the matrices."
)
def computed_in_float32(X, output_size):
    return adaptive_avg_pool2d(X.float(), output_size).to(X.dtype)


@exercise.wrong("The end of a bin is not part of it: r < ceil((i + 1) * H / oh), not r <= it.")
def end_included(X, output_size):
    size = check_inputs(X, output_size)
    return pooled_with(X, size, lambda i, n, m: (floor_ceil(i, n, m)[0], min(floor_ceil(i, n, m)[1] + 1, n)))


@exercise.right("einsum with both matrices")
def by_einsum(X, output_size):
    size = [output_size] * 2 if isinstance(output_size, int) else list(output_size)
    if X.dim() != 4 or min(X.shape[2:]) == 0 or min(size) <= 0:
        raise ValueError
    matrices = []
    for n, m in zip(X.shape[2:], size, strict=True):
        start = torch.tensor([i * n // m for i in range(m)])
        length = torch.tensor([-(-(i + 1) * n // m) for i in range(m)]) - start
        off = torch.arange(n) - start[:, None]
        matrices.append(((off >= 0) & (off < length[:, None])) / length[:, None].to(X.dtype))
    return torch.einsum("nchw,ah,bw->ncab", X, *matrices)


@exercise.right("gathering the pixels of each bin")
def by_gathering(X, output_size):
    size = (output_size,) * 2 if isinstance(output_size, int) else output_size
    if X.ndim != 4 or not X.shape[2] or not X.shape[3] or size[0] < 1 or size[1] < 1:
        raise ValueError
    for axis in (2, 3):
        n, m = X.shape[axis], size[axis - 2]
        i = torch.arange(m)
        start, end = i * n // m, -(-(i + 1) * n // m)
        places = start[:, None] + torch.arange(-(-n // m) + 1)
        values = X.index_select(axis, places.clamp(max=n - 1).flatten()).unflatten(axis, places.shape)
        outside = places >= end[:, None]
        values = values.masked_fill(outside if axis == 3 else outside[..., None], 0)
        length = (end - start) if axis == 3 else (end - start)[:, None]
        X = values.sum(axis + 1) / length
    return X
