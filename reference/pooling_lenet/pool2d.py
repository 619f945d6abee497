"""Maximum and average pooling of images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from grader import Case, Cost, Exercise


def pool2d(
    X: Tensor,
    kernel_size: int | tuple[int, int],
    *,
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    mode: str = "max",
    count_include_pad: bool = True,
) -> Tensor:
    """Slide a window over each channel of each image and keep its maximum or its average.

    Sizes are pairs (height, width); an int n means (n, n). The output has `(H + 2 * padding - kernel) // stride + 1`
    rows, and columns likewise: rows and columns on the far side that no window reaches are ignored.

    Args:
        X: images `(N, C, H, W)`, float; N = 0 gives an empty result. Any memory layout.
        kernel_size: size of the window.
        stride: distance between windows; None means `kernel_size`.
        padding: rows and columns added on each side, at most half the kernel.
        mode: `"max"` (padding can never win) or `"avg"`.
        count_include_pad: for `"avg"`: True divides by kernel height * width, padded zeros counted; False by the
            number of real pixels in the window. `"max"` ignores it.

    Returns:
        New tensor `(N, C, out_height, out_width)`. A nan inside a window gives nan there and nowhere else, inf in
        an averaged window gives inf. The gradient of a maximum is graded only where one pixel alone reaches
        it.

    Raises:
        ValueError: `X` is not 4-D; a kernel or stride < 1; padding < 0 or 2 * padding > kernel on an axis; no
            window fits (an output size < 1); `mode` is another word.

    Example:
        >>> X = torch.arange(9.0).reshape(1, 1, 3, 3)
        >>> pool2d(X, 2, stride=1)
        tensor([[[[4., 5.],
                  [7., 8.]]]])
        >>> pool2d(X, 3, stride=2, padding=1, mode="avg", count_include_pad=False)
        tensor([[[[2., 3.],
                  [5., 6.]]]])
    """
    if mode not in ("max", "avg"):
        raise ValueError(f'mode must be "max" or "avg", got {mode!r}')
    kernel, pad = _pair(kernel_size), _pair(padding)
    step = kernel if stride is None else _pair(stride)
    if X.ndim != 4 or min(kernel) < 1 or min(step) < 1 or min(pad) < 0:
        raise ValueError("X must be (N, C, H, W), kernel and stride at least 1, padding at least 0")
    if any(2 * p > k or n + 2 * p < k for n, k, p in zip(X.shape[2:], kernel, pad, strict=True)):
        raise ValueError("padding must be at most half the kernel, and a window must fit")
    if mode == "max":
        return _combine(torch.maximum, X, kernel, step, pad, -torch.inf)
    total = _combine(torch.add, X, kernel, step, pad, 0.0)
    if count_include_pad:
        return total / (kernel[0] * kernel[1])
    return total / _combine(torch.add, torch.ones_like(X[:1, :1]), kernel, step, pad, 0.0)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width)."""
    return (size, size) if isinstance(size, int) else size


def _combine(merge, X: Tensor, kernel: tuple, step: tuple, pad: tuple, filler: float) -> Tensor:
    """Merge kernel-many shifted and strided views of the padded images, one for each place in the window."""
    X = F.pad(X, (pad[1], pad[1], pad[0], pad[0]), value=filler)
    height, width = ((n - k) // s + 1 for n, k, s in zip(X.shape[2:], kernel, step, strict=True))
    merged = None
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            view = X[:, :, i : i + (height - 1) * step[0] + 1 : step[0], j : j + (width - 1) * step[1] + 1 : step[1]]
            merged = view.clone() if merged is None else merge(merged, view)
    return merged


exercise = Exercise(
    pool2d,
    points=8,
    gradients=("X",),
    forbid=("*pool*", "*Pool*", "im2col*", "Unfold"),
    hints=(
        "How many places does a window have, and how many windows are there? Loop over the smaller number.",
        "For one place (i, j) in the window, a strided slice of the padded image holds that entry of all windows at "
        "once. Pad with -inf for the maximum; for the average pad with 0 and count, if asked, the real pixels.",
        "view = X[:, :, i : i + (oh - 1) * sh + 1 : sh, j : j + (ow - 1) * sw + 1 : sw] for each (i, j); merge the "
        "views with torch.maximum or +; run the same sum over an image of ones to count the real pixels.",
    ),
    source="D2L convolutional-neural-networks/pooling",
)


@exercise.truth
def truth(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    if mode == "max":
        return F.max_pool2d(X, kernel_size, stride, padding)
    return F.avg_pool2d(X, kernel_size, stride, padding, count_include_pad=count_include_pad)


@exercise.cases
def cases(draw):
    inf, nan = float("inf"), float("nan")
    book = torch.arange(9.0).reshape(1, 1, 3, 3)
    yield Case("the 3x3 example of the book, maximum", book, 2, stride=1)
    yield Case("the 3x3 example of the book, average", book, 2, stride=1, mode="avg")
    yield Case("the window size is the default stride", draw.normal(2, 3, 6, 8), 2, cost=Cost(ops=2 * 4 + 12))
    yield Case("average, unequal pairs", draw.normal(2, 3, 7, 11), (3, 2), stride=(2, 3), padding=(1, 0), mode="avg")
    pairs = {"kernel_size": (2, 4), "stride": (1, 3), "padding": (1, 2)}
    yield Case("maximum, unequal pairs", draw.normal(3, 2, 5, 9), **pairs, cost=Cost(ops=2 * 8 + 12))
    pairs = {"kernel_size": (4, 3), "stride": (3, 1), "padding": (2, 1), "mode": "avg", "count_include_pad": False}
    yield Case("average of real pixels", draw.normal(3, 2, 8, 5), **pairs, cost=Cost(ops=2 * 12 + 12))
    dark = draw.normal(2, 3, 6, 5).relu()  # about half of the pixels are 0
    yield Case(
        "average of real pixels, many of them 0", dark, 3, stride=1, padding=1, mode="avg", count_include_pad=False
    )
    yield Case("all negative, padded maximum", -1 - draw.uniform(2, 3, 5, 7), 3, stride=2, padding=1)
    yield Case("overlapping windows", draw.normal(2, 1, 9, 7), 3, stride=2)
    yield Case("overlapping averages", draw.normal(1, 4, 7, 9), 3, stride=2, mode="avg")
    yield Case("gaps between windows", draw.normal(2, 2, 9, 12), 2, stride=(4, 3))
    yield Case("rows and columns left over", draw.normal(2, 3, 8, 11), 3, mode="avg")
    yield Case("window 1", draw.normal(2, 3, 4, 5), 1, edge=True)
    yield Case("window 1, average", draw.normal(2, 3, 4, 5), 1, stride=1, mode="avg", edge=True)
    yield Case("no images", draw.normal(0, 3, 6, 5), 2, mode="avg", edge=True)
    far = -1e6 + 1e5 * draw.normal(2, 2, 5, 6)
    yield Case("far below zero, padded maximum", far, (2, 3), padding=1, edge=True)
    last = draw.normal(2, 3, 7, 6).to(memory_format=torch.channels_last)
    yield Case("channels last", last, (3, 2), stride=2, padding=1, edge=True)
    broken = draw.normal(1, 2, 6, 8)
    broken[0, 0, 1, 1], broken[0, 1, 4, 6] = nan, nan
    yield Case("nan in a window, maximum", broken, (2, 3), stride=2, grad=False, edge=True)
    yield Case("nan in a window, average", broken, 3, stride=1, padding=1, mode="avg", grad=False, edge=True)
    huge = draw.normal(1, 2, 5, 4)
    huge[0, 0, 0, 0], huge[0, 1, 2, 3] = inf, -inf
    yield Case("inf beside the padding, average", huge, 2, padding=1, mode="avg", grad=False, edge=True)
    yield Case("inf beside the padding, maximum", huge, 2, padding=1, grad=False, edge=True)
    night = draw.normal(2, 1, 4, 6)
    night[:, :, :, 4:] = -inf
    yield Case("-inf along an edge, padded maximum", night, 3, stride=1, padding=1, grad=False, edge=True, hidden=True)
    yield Case("count_include_pad does not matter", draw.normal(2, 2, 5, 6), 2, padding=1, count_include_pad=False)
    yield Case("tiny values, average", 1e-3 * draw.normal(3, 2, 10, 6), (5, 2), padding=(2, 1), mode="avg", hidden=True)
    real = {"mode": "avg", "count_include_pad": False, "hidden": True}
    yield Case("large values, real pixels", 1e3 + draw.normal(2, 3, 6, 9), 3, stride=2, padding=1, **real)
    yield Case("real pixels without padding", draw.normal(2, 2, 7, 5), (2, 3), stride=1, **real)
    yield Case("the window is the image", draw.normal(3, 2, 5, 7), (5, 7), hidden=True)
    yield Case("no images, maximum", draw.normal(0, 2, 5, 7), 3, padding=1, edge=True, hidden=True)
    yield Case("padded to one window", draw.normal(2, 3, 2, 1), 4, padding=2, mode="avg", edge=True, hidden=True)
    image = draw.normal(2, 3, 6, 5)
    yield Case("another mode", image, 2, mode="mean", raises=ValueError)
    yield Case("three axes", image[0], 2, raises=ValueError)
    yield Case("window 0", image, 0, raises=ValueError)
    yield Case("a window without columns, stride 1", image, (2, 0), stride=1, raises=ValueError)
    yield Case("stride 0", image, 2, stride=(1, 0), raises=ValueError)
    yield Case("negative padding", image, 3, padding=-1, mode="avg", raises=ValueError)
    yield Case("padding of more than half the window", image, (3, 4), padding=2, raises=ValueError)
    yield Case("a window larger than the image", image, (3, 6), mode="avg", raises=ValueError)
    yield Case("a window too high, padded", image[:, :, :2], (5, 2), padding=1, raises=ValueError)
    yield Case("five axes", image[None], 2, mode="avg", raises=ValueError, hidden=True)
    yield Case("too much padding, average", image, (2, 5), padding=(2, 1), mode="avg", raises=ValueError, hidden=True)
    yield Case("a window too high", image, (7, 2), stride=2, raises=ValueError, hidden=True)
    yield Case("a negative stride", image, 2, stride=(-1, 2), raises=ValueError, hidden=True)


@exercise.growth("image size", sizes=(12, 24), ops=0.0)
def larger_images(draw, size):
    return Case(f"{size} pixels", draw.normal(1, 2, size, size + 1), 3, stride=2, padding=1, mode="avg")


@exercise.growth("images and channels", sizes=(4, 8), ops=0.0)
def more_images(draw, size):
    return Case(f"{size} images", draw.normal(size, size + 1, 6, 5), 2, stride=1)


def windows_of(X, kernel, step, pad, mode):
    """Return all windows of the padded images as two more axes."""
    filler = -torch.inf if mode == "max" else 0.0
    images = F.pad(X, (pad[1], pad[1], pad[0], pad[0]), value=filler)
    return images.unfold(2, kernel[0], step[0]).unfold(3, kernel[1], step[1])


def merged_windows(windows, X, kernel, step, pad, mode, count_include_pad):
    """Return each window's maximum or average."""
    if mode == "max":
        return windows.amax((-2, -1))
    if count_include_pad:
        return windows.mean((-2, -1))
    real = windows_of(X.new_ones(1, 1, *X.shape[2:]), kernel, step, pad, mode)
    return windows.sum((-2, -1)) / real.sum((-2, -1))


def checked(X, kernel_size, stride, padding, mode):
    """Refuse what the contract refuses and return kernel, stride and padding as pairs."""
    kernel, pad = _pair(kernel_size), _pair(padding)
    step = kernel if stride is None else _pair(stride)
    if mode not in ("max", "avg") or X.ndim != 4 or min(*kernel, *step) < 1 or min(pad) < 0:
        raise ValueError
    if any(2 * p > k or n + 2 * p < k for n, k, p in zip(X.shape[2:], kernel, pad, strict=True)):
        raise ValueError
    return kernel, step, pad


def places_of(X, kernel, step, pad, size, mode):
    """Return, for each place in the window, that entry of `size` windows."""
    filler = -torch.inf if mode == "max" else 0.0
    images = F.pad(X, (pad[1], pad[1], pad[0], pad[0]), value=filler)
    ends = [(n - 1) * s + 1 for n, s in zip(size, step, strict=True)]
    return torch.stack([
        images[:, :, i : i + ends[0] : step[0], j : j + ends[1] : step[1]]
        for i in range(kernel[0]) for j in range(kernel[1])
    ])  # fmt: skip


def with_size(X, kernel, step, pad, size, mode, count_include_pad):
    """Pool to an output of the given size, right or not."""
    views = places_of(X, kernel, step, pad, size, mode)
    if mode == "max":
        return views.amax(0)
    if count_include_pad:
        return views.mean(0)
    return views.sum(0) / places_of(X.new_ones(1, 1, *X.shape[2:]), kernel, step, pad, size, mode).sum(0)


def swapped(size):
    return size if size is None or isinstance(size, int) else size[::-1]


@exercise.wrong("Zeros win over negative pixels: for the maximum pad with -inf.")
def zero_padding_for_max(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    y = pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)
    if mode != "max":
        return y
    high, wide = _pair(padding)
    return pool2d(F.pad(X, (wide, wide, high, high)), kernel_size, stride=kernel_size if stride is None else stride)


@exercise.wrong("A finite filler such as -1e4 still wins over smaller values: pad with -inf.")
def finite_filler(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    y = pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)
    if mode != "max":
        return y
    high, wide = _pair(padding)
    padded = F.pad(X, (wide, wide, high, high), value=-1e4)
    return pool2d(padded, kernel_size, stride=kernel_size if stride is None else stride)


@exercise.wrong("Without a stride the windows stand side by side: the default is the window size, not 1.")
def default_stride_one(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    stride = 1 if stride is None else stride
    return pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)


@exercise.wrong("With count_include_pad=False divide by the number of real pixels in the window, not by all of it.")
def divides_by_the_whole_window(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    return pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode)


@exercise.wrong("By default the padding counts: divide by kernel height * width.")
def never_counts_padding(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    return pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=False)


@exercise.wrong("The two ways to count are the wrong way round.")
def count_inverted(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    return pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=not count_include_pad)


@exercise.wrong("Pooling treats every channel alone: a convolution adds channels up, pooling keeps them.")
def sum_over_channels(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    y = pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)
    return y.sum(1, keepdim=True)


@exercise.wrong("Pairs are (height, width). Here the window is turned by a quarter.")
def window_turned(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode)
    kernel = swapped(kernel_size)
    stride = kernel_size if stride is None else stride
    padding = tuple(min(p, k // 2) for p, k in zip(_pair(padding), _pair(kernel), strict=True))
    return pool2d(X, kernel, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)


@exercise.wrong("F.pad counts from the last axis: (left, right, top, bottom). Height and width were mixed up.")
def padding_turned(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode)
    high, wide = _pair(padding)
    stride = kernel_size if stride is None else stride
    if mode == "max":
        return pool2d(F.pad(X, (high, high, wide, wide), value=-torch.inf), kernel_size, stride=stride)
    total = pool2d(F.pad(X, (high, high, wide, wide)), kernel_size, stride=stride, mode=mode)
    if count_include_pad:
        return total
    ones = F.pad(torch.ones_like(X), (high, high, wide, wide))
    return total / pool2d(ones, kernel_size, stride=stride, mode=mode)


@exercise.wrong("Strides are (along the height, along the width).")
def stride_turned(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    stride = swapped(kernel_size if stride is None else stride)
    return pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)


@exercise.wrong("A pair has two numbers, one for each axis: the second one is ignored.")
def first_number_for_both(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode)
    stride = _pair(kernel_size if stride is None else stride)[0]
    return pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)


@exercise.wrong("A nan must show: torch.fmax and nan_to_num hide it.")
def hides_nan(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    filler = -torch.inf if mode == "max" else 0.0
    X = torch.where(X.isnan(), filler, X)
    return pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)


@exercise.wrong("Differences of running sums carry a nan or inf into all later windows: add up each window by itself.")
def running_sums(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    y = pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)
    if mode == "max" or not X.numel() or not count_include_pad:
        return y
    (kh, kw), (ph, pw) = _pair(kernel_size), _pair(padding)
    sh, sw = _pair(kernel_size if stride is None else stride)
    sums = F.pad(F.pad(X, (pw, pw, ph, ph)).cumsum(2).cumsum(3), (1, 0, 1, 0))
    rows = torch.arange(0, sums.shape[2] - kh, sh)
    columns = torch.arange(0, sums.shape[3] - kw, sw)
    bands = sums[:, :, rows + kh] - sums[:, :, rows]
    return (bands[..., columns + kw] - bands[..., columns]) / (kh * kw)


@exercise.wrong(
    "`best = X[...]` is a view: `torch.maximum(..., out=best)` writes into the image itself.", caught_by="inputs"
)
def writes_into_the_image(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    y = pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)
    if mode == "max" and padding == 0 and X.numel():
        sh, sw = _pair(kernel_size if stride is None else stride)
        with torch.no_grad():
            X[:, :, : (y.shape[2] - 1) * sh + 1 : sh, : (y.shape[3] - 1) * sw + 1 : sw] = y
    return y


@exercise.wrong("A window of one pixel returns the image itself, as a view: make a new tensor.", caught_by="inputs")
def view_of_the_image(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    y = pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)
    return X[:, :, ::1] if X.shape == y.shape and _pair(kernel_size) == (1, 1) else y


@exercise.wrong(
    "A double loop over the output costs one operation a pixel: loop over the places in the window.", caught_by="growth"
)
def loop_over_outputs(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    y = pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)
    rows = [torch.stack([y[:, :, i, j].clone() for j in range(y.shape[3])], -1) for i in range(y.shape[2])]
    return torch.stack(rows, -2)


@exercise.wrong(
    "Padding of more than half the window can make windows without a pixel: ValueError, as in torch.",
    caught_by="errors",
)
def any_padding(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    high, wide = _pair(padding)
    kernel = _pair(kernel_size)
    if 2 * high > kernel[0] or 2 * wide > kernel[1]:
        padded = F.pad(X, (wide, wide, high, high), value=-torch.inf if mode == "max" else 0.0)
        return pool2d(padded, kernel_size, stride=stride, mode=mode)
    return pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)


@exercise.wrong('Any word but "max" and "avg" is a ValueError, not an average.', caught_by="errors")
def other_modes_average(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    mode = "max" if mode == "max" else "avg"
    return pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)


def padded_by_hand(X, kernel_size, stride, padding, filler):
    high, wide = _pair(padding)
    images = F.pad(X, (wide, wide, high, high), value=filler)
    return pool2d(images, kernel_size, stride=kernel_size if stride is None else stride)


@exercise.wrong("The dtype's smallest finite number still wins over -inf: pad with -inf itself.")
def smallest_finite_filler(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    y = pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)
    return y if mode != "max" else padded_by_hand(X, kernel_size, stride, padding, torch.finfo(X.dtype).min)


@exercise.wrong(
    "A filler taken from the image fails for a batch of no images, and one nan spoils it: pad with -inf.",
    caught_by="runs",
)
def filler_from_the_image(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    y = pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)
    return y if mode != "max" else padded_by_hand(X, kernel_size, stride, padding, X.min().item() - 1.0)


@exercise.wrong("Padding goes on all four sides, not only at the top and on the left.")
def one_sided_padding(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    y = pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)
    (high, wide), stride = _pair(padding), kernel_size if stride is None else stride
    if padding == 0 or not X.numel():
        return y
    images = F.pad(X, (2 * wide, 0, 2 * high, 0), value=-torch.inf if mode == "max" else 0.0)
    return pool2d(images, kernel_size, stride=stride, mode=mode)


@exercise.wrong(
    "view() fails on channels-last and other strided images: use reshape, or no reshaping.", caught_by="runs"
)
def needs_contiguous_images(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    y = pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)
    X.view(-1)
    return y


@exercise.wrong(
    "Slice all images and channels at once: a loop over them costs operations for each.", caught_by="growth"
)
def loop_over_channels(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    y = pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)
    kernel, pad = _pair(kernel_size), _pair(padding)
    step = kernel if stride is None else _pair(stride)
    result = torch.zeros_like(y)
    for n in range(X.shape[0]):
        for c in range(X.shape[1]):
            windows = windows_of(X[n : n + 1, c : c + 1], kernel, step, pad, mode)
            result[n, c] = merged_windows(windows, X, kernel, step, pad, mode, count_include_pad)[0, 0]
    return result


@exercise.wrong("Images need not be square: the output's width follows from the width.")
def square_images_only(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    y = pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)
    side = min(y.shape[2:])
    return y[:, :, :side, :side].clone()


@exercise.wrong("Average means the mean of the window, not its sum.")
def sum_not_average(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    y = pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)
    high, wide = _pair(kernel_size)
    return y * high * wide if mode == "avg" else y


@exercise.speed(4.5, size=8, cuda=128)
def speed(draw, size):
    return Case("images of 16x32x32", draw.normal(size, 16, 32, 32), 3, stride=2, padding=1)


@exercise.wrong("A pixel of value 0 is a real pixel: count places inside the image, not entries other than 0.")
def counts_what_is_not_zero(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    kernel, step, pad = checked(X, kernel_size, stride, padding, mode)
    windows = windows_of(X, kernel, step, pad, mode)
    if mode == "max" or count_include_pad:
        return merged_windows(windows, X, kernel, step, pad, mode, count_include_pad)
    return windows.sum((-2, -1)) / (windows != 0).sum((-2, -1)).clamp(min=1)


@exercise.wrong("Sizes round down: a window that hangs over the edge is left out, not filled up.")
def rounds_up(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    kernel, step, pad = checked(X, kernel_size, stride, padding, mode)
    missing = [-(n + 2 * p - k) % s for n, k, s, p in zip(X.shape[2:], kernel, step, pad, strict=True)]

    def windows(images, filler):
        images = F.pad(images, (pad[1], pad[1] + missing[1], pad[0], pad[0] + missing[0]), value=filler)
        return images.unfold(2, kernel[0], step[0]).unfold(3, kernel[1], step[1])

    if mode == "max":
        return windows(X, -torch.inf).amax((-2, -1))
    total = windows(X, 0.0).sum((-2, -1))
    if count_include_pad:
        return total / (kernel[0] * kernel[1])
    return total / windows(X.new_ones(1, 1, *X.shape[2:]), 0.0).sum((-2, -1))


@exercise.wrong("Pairs are (height, width): kernel, stride and padding were read as (width, height).")
def pairs_turned(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    kernel, step, pad = (swapped(size) for size in (kernel_size, stride, padding))
    return pool2d(X, kernel, stride=step, padding=pad, mode=mode, count_include_pad=count_include_pad)


@exercise.wrong("Padding is on both sides: H + 2 * padding - kernel, not H + padding - kernel.")
def padding_counted_once(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    kernel, step, pad = checked(X, kernel_size, stride, padding, mode)
    size = [(n + p - k) // s + 1 for n, k, s, p in zip(X.shape[2:], kernel, step, pad, strict=True)]
    return with_size(X, kernel, step, pad, size, mode, count_include_pad)


@exercise.wrong("The first window needs no step: (H + 2 * padding - kernel) // stride + 1, the + 1 is missing.")
def one_window_short(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    kernel, step, pad = checked(X, kernel_size, stride, padding, mode)
    size = [max((n + 2 * p - k) // s, 1) for n, k, s, p in zip(X.shape[2:], kernel, step, pad, strict=True)]
    return with_size(X, kernel, step, pad, size, mode, count_include_pad)


@exercise.wrong("Even -1e9 wins over -inf: pad the maximum with -inf itself.")
def filler_of_minus_a_billion(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    y = pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)
    return y if mode != "max" else padded_by_hand(X, kernel_size, stride, padding, -1e9)


@exercise.wrong("A comparison with nan is False, so where(s > best, s, best) drops a nan: torch.maximum keeps it.")
def compares_with_nan(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    kernel, step, pad = checked(X, kernel_size, stride, padding, mode)
    if mode == "avg":
        return pool2d(X, kernel_size, stride=stride, padding=padding, mode=mode, count_include_pad=count_include_pad)
    size = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(X.shape[2:], kernel, step, pad, strict=True)]
    best = torch.full((*X.shape[:2], *size), -torch.inf, dtype=X.dtype)
    for view in places_of(X, kernel, step, pad, size, mode):
        best = torch.where(view > best, view, best)
    return best


@exercise.right("strided windows as two more axes")
def by_windows(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    if isinstance(kernel_size, int):
        kernel_size = (kernel_size, kernel_size)
    if isinstance(padding, int):
        padding = (padding, padding)
    stride = kernel_size if stride is None else (stride, stride) if isinstance(stride, int) else stride
    (kh, kw), (sh, sw), (ph, pw) = kernel_size, stride, padding
    if X.ndim != 4 or mode not in {"max", "avg"} or min(kh, kw, sh, sw) < 1 or min(ph, pw) < 0:
        raise ValueError
    if 2 * ph > kh or 2 * pw > kw or X.size(2) + 2 * ph < kh or X.size(3) + 2 * pw < kw:
        raise ValueError

    def windows(images, filler):
        return F.pad(images, (pw, pw, ph, ph), value=filler).unfold(2, kh, sh).unfold(3, kw, sw)

    if mode == "max":
        return windows(X, float("-inf")).amax((-2, -1))
    if count_include_pad:
        return windows(X, 0.0).mean((-2, -1))
    return windows(X, 0.0).sum((-2, -1)) / windows(X.new_ones(1, 1, *X.shape[2:]), 0.0).sum((-2, -1))


@exercise.right("rows first, columns afterwards")
def one_axis_at_a_time(X, kernel_size, *, stride=None, padding=0, mode="max", count_include_pad=True):
    kernel, pad = _pair(kernel_size), _pair(padding)
    step = kernel if stride is None else _pair(stride)
    if X.dim() != 4 or mode not in ("max", "avg") or min(*kernel, *step) <= 0 or min(pad) < 0:
        raise ValueError
    counts = [(X.shape[a + 2] + 2 * pad[a] - kernel[a]) // step[a] + 1 for a in (0, 1)]
    if min(counts) < 1 or any(2 * pad[a] > kernel[a] for a in (0, 1)):
        raise ValueError

    def reduce(images):
        images = F.pad(images, (pad[1], pad[1], pad[0], pad[0]), value=-torch.inf if mode == "max" else 0)
        for axis in (3, 2):
            k, s, last = kernel[axis - 2], step[axis - 2], (counts[axis - 2] - 1) * step[axis - 2]
            views = [images.narrow(axis, i, last + 1).movedim(axis, 0)[::s].movedim(0, axis) for i in range(k)]
            images = torch.stack(views).amax(0) if mode == "max" else torch.stack(views).sum(0)
        return images

    if mode == "max":
        return reduce(X)
    return reduce(X) / (kernel[0] * kernel[1] if count_include_pad else reduce(X.new_ones(1, 1, *X.shape[2:])))
