"""Windows of an image as the columns of a matrix."""

import torch
import torch.nn.functional as F
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.convolution import FORBID
from reference.convolution.conv_geometry import conv_geometry

Pair = int | tuple[int, int]


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def im2col(X: Tensor, kernel_size: Pair, *, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1) -> Tensor:
    """Write every window of an image as a column, so that a convolution becomes one matrix product.

    Args:
        X: images, float, shape (N, C, H, W); any memory layout, also channels-last. N may be 0.
        kernel_size: kh and kw, the window's cells. This and the options below are Pair = int | tuple[int, int]:
            (vertical, horizontal), and an int stands for both.
        stride: pixels from one window to the next.
        padding: zeros added on every side: (above and below, left and right).
        dilation: pixels from one cell of a window to the next.

    Returns:
        Tensor of shape (N, C * kh * kw, L), of X's dtype, with L = oh * ow windows; along each axis their number is
        floor((n + 2p - d(k - 1) - 1) / s) + 1. Pixels at the far side that no window reaches are left out.
        Row c * kh * kw + a * kw + b holds cell (a, b) of channel c; column i * ow + j holds window (i, j).
        The result owns its memory, with a 1 x 1 kernel too. Differentiable in X.
        At most 16 torch operations, whatever the sizes, and hardly any memory beyond the padded images and the result.

    Raises:
        ValueError: X is not 4-D; a kernel size, stride or dilation is below 1; a padding is negative; or no window
            fits along an axis.

    Example:
        >>> im2col(torch.arange(9.0).reshape(1, 1, 3, 3), 2)
        tensor([[[0., 1., 3., 4.],
                 [1., 2., 4., 5.],
                 [3., 4., 6., 7.],
                 [4., 5., 7., 8.]]])
    """
    if X.ndim != 4:
        raise ValueError(f"X must be 4-D (N, C, H, W), got {X.ndim}-D")
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = map(_pair, (kernel_size, stride, padding, dilation))
    N, C, H, W = X.shape
    oh = conv_geometry([(kh, sh, ph, dh)], H)[0]
    ow = conv_geometry([(kw, sw, pw, dw)], W)[0]
    if ph or pw:
        X = F.pad(X, (pw, pw, ph, ph))  # F.pad lists the last axis first
    windows = X.unfold(2, dh * (kh - 1) + 1, sh).unfold(3, dw * (kw - 1) + 1, sw)  # a view (N, C, oh, ow, span, span)
    cells = windows[..., ::dh, ::dw].permute(0, 1, 4, 5, 2, 3)
    return cells.clone(memory_format=torch.contiguous_format).view(N, C * kh * kw, oh * ow)


exercise = Exercise(
    im2col,
    points=8,
    gradients=("X",),
    cost=Cost(ops=16),
    forbid=FORBID,
    uses=("conv_geometry",),
    hints=(
        "All windows together can be a view of the padded images, with axes for window and cell: see Tensor.unfold.",
        "A dilated window is a larger one, of d(k - 1) + 1 pixels, of which every d-th is kept.",
        "Bring the view's axes into the order N, C, kh, kw, oh, ow, copy it (clone), and only then reshape.",
    ),
    source="D2L convolutional-neural-networks/padding-and-strides; convolutional-modern/nin",
)


@exercise.truth
def truth(X, kernel_size, *, stride=1, padding=0, dilation=1):
    return F.unfold(X, kernel_size, dilation=dilation, padding=padding, stride=stride)


@exercise.cases
def cases(draw):
    yield Case("numbered pixels", torch.arange(2 * 2 * 4 * 5.0).reshape(2, 2, 4, 5), (2, 3))
    yield Case("all options unequal", draw.normal(2, 3, 9, 11), (3, 2), stride=(2, 3), padding=(1, 2), dilation=(2, 1))
    yield Case("int for both axes", draw.normal(2, 3, 8, 10), 3, stride=2, padding=1, dilation=2)
    yield Case("stride larger than the kernel", draw.normal(3, 2, 9, 8), (2, 1), stride=(3, 4))
    yield Case("padding larger than the kernel", draw.normal(2, 2, 3, 4), (1, 2), padding=(2, 3), edge=True)
    yield Case("padding left and right only", draw.normal(2, 3, 4, 5), (2, 3), padding=(0, 2))
    yield Case("pixels are left over", draw.normal(2, 2, 8, 9), (3, 2), stride=(2, 4))
    yield Case("dilation (1, 3)", draw.normal(2, 3, 5, 9), (2, 3), dilation=(1, 3))
    yield Case("one channel", draw.normal(3, 1, 5, 7), (3, 2))
    yield Case("a 1x1 kernel", draw.normal(2, 3, 4, 5), 1, edge=True)
    yield Case("one window in all", draw.normal(2, 3, 3, 4), (3, 4), edge=True)
    yield Case("one image, one channel, 1x1", draw.normal(1, 1, 4, 3), 1, edge=True)
    yield Case("no images", draw.normal(0, 2, 5, 6), (3, 2), padding=(0, 1), edge=True)
    yield Case("channels-last", draw.normal(2, 3, 5, 6).to(memory_format=torch.channels_last), (2, 3))
    yield Case("channels-last, 1x1 kernel, strided", draw.normal(2, 3, 6, 5).to(memory_format=torch.channels_last), 1,
               stride=(2, 1), hidden=True)  # fmt: skip
    yield Case("float64", draw.normal(2, 2, 4, 6, dtype=torch.float64), (2, 1), padding=(1, 0))
    padded = (20 + 2) * (24 + 4) / (20 * 24) + 0.25  # some room for small index tables
    yield Case("a larger batch", draw.normal(4, 3, 20, 24), (3, 4), padding=(1, 2),
               cost=Cost(peak={"X": padded, "result": 1}))  # fmt: skip
    yield Case("a large offset", draw.normal(2, 3, 6, 7) + 1e4, (2, 3), stride=(1, 2), padding=(1, 0), hidden=True)
    yield Case("tiny values", 1e-3 * draw.normal(3, 2, 7, 6), (3, 1), stride=(2, 1), dilation=(1, 2), hidden=True)
    yield Case("a slice of larger images", draw.normal(2, 5, 9, 8)[:, 1:4, 2:8, 1:], (2, 3), padding=1, hidden=True)
    yield Case("dilation (3, 1), stride (1, 2)", draw.normal(2, 3, 10, 7), (3, 2), stride=(1, 2), dilation=(3, 1),
               hidden=True)  # fmt: skip
    yield Case("3-D images", draw.normal(3, 5, 6), 2, raises=ValueError)
    yield Case("5-D images", draw.normal(1, 2, 3, 5, 6), 2, raises=ValueError, hidden=True)
    yield Case("kernel too tall", draw.normal(2, 3, 4, 9), (5, 2), raises=ValueError)
    yield Case("kernel too wide", draw.normal(2, 3, 9, 4), (2, 5), raises=ValueError)
    yield Case("dilated kernel too wide", draw.normal(2, 3, 9, 4), 3, dilation=(1, 2), raises=ValueError)
    yield Case("padding on the wrong axis", draw.normal(2, 3, 9, 4), (2, 5), padding=(1, 0), raises=ValueError)
    yield Case("kernel size 0", draw.normal(2, 3, 5, 6), (0, 2), raises=ValueError)
    yield Case("stride 0", draw.normal(2, 3, 5, 6), 2, stride=(1, 0), raises=ValueError)
    yield Case("dilation 0", draw.normal(2, 3, 5, 6), 2, dilation=(0, 1), raises=ValueError)
    yield Case("negative padding", draw.normal(2, 3, 5, 6), 2, padding=(0, -1), raises=ValueError)
    yield Case("negative stride", draw.normal(2, 3, 5, 6), 2, stride=-1, raises=ValueError, hidden=True)
    yield Case("no window though there are no images", draw.normal(0, 3, 2, 6), 3, raises=ValueError, hidden=True)


@exercise.growth("rows", sizes=(8, 16), ops=0, peak=1)
def more_rows(draw, size):
    return Case(f"{size} rows", draw.normal(2, 3, size, 7), (3, 2), padding=(1, 0))


@exercise.growth("columns", sizes=(8, 16), ops=0, peak=1)
def more_columns(draw, size):
    return Case(f"{size} columns", draw.normal(2, 3, 5, size), (3, 2), padding=(1, 0))


@exercise.growth("images", sizes=(4, 8), ops=0)
def more_images(draw, size):
    return Case(f"{size} images", draw.normal(size, 2, 5, 6), (3, 2))


@exercise.growth("channels", sizes=(4, 8), ops=0)
def more_channels(draw, size):
    return Case(f"{size} channels", draw.normal(2, size, 5, 6), (3, 2))


@exercise.growth("kernel height", sizes=(4, 8), ops=0)
def taller_kernel(draw, size):
    return Case(f"{size} cells", draw.normal(2, 2, 12, 5), (size, 2))


def as_view(X, kernel_size, *, stride=1, padding=0, dilation=1, pad=None):
    """Return all windows as a view (N, C, oh, ow, kh, kw) of the padded images, after raising what is due."""
    if X.ndim != 4:
        raise ValueError
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = map(_pair, (kernel_size, stride, padding, dilation))
    conv_geometry([(kh, sh, ph, dh)], X.size(2))
    conv_geometry([(kw, sw, pw, dw)], X.size(3))
    X = F.pad(X, pad or (pw, pw, ph, ph))
    return X.unfold(2, dh * (kh - 1) + 1, sh).unfold(3, dw * (kw - 1) + 1, sw)[..., ::dh, ::dw]


@exercise.wrong("The channel is the slowest row index: channel first, then the cells of the kernel.")
def cells_before_channels(X, kernel_size, **options):
    view = as_view(X, kernel_size, **options)
    N, C, oh, ow, kh, kw = view.shape
    return view.permute(0, 4, 5, 1, 2, 3).reshape(N, C * kh * kw, oh * ow)


@exercise.wrong("Windows are numbered row by row: column i * ow + j holds window (i, j).")
def windows_column_by_column(X, kernel_size, **options):
    view = as_view(X, kernel_size, **options)
    N, C, oh, ow, kh, kw = view.shape
    return view.permute(0, 1, 4, 5, 3, 2).reshape(N, C * kh * kw, oh * ow)


@exercise.wrong("Cells are numbered row by row: row c * kh * kw + a * kw + b holds cell (a, b).")
def cells_column_by_column(X, kernel_size, **options):
    view = as_view(X, kernel_size, **options)
    N, C, oh, ow, kh, kw = view.shape
    return view.permute(0, 1, 5, 4, 2, 3).reshape(N, C * kh * kw, oh * ow)


@exercise.wrong("reshape only relabels the memory: the axes must stand as N, C, kh, kw, oh, ow before it.")
def reshape_without_permute(X, kernel_size, **options):
    view = as_view(X, kernel_size, **options)
    N, C, oh, ow, kh, kw = view.shape
    return view.reshape(N, C * kh * kw, oh * ow)


@exercise.wrong("Rows are cells and columns are windows: this is the transpose.")
def windows_as_rows(X, kernel_size, **options):
    return im2col(X, kernel_size, **options).transpose(1, 2).contiguous()


@exercise.wrong("Each image keeps a matrix of its own: do not join the batch with the windows.", caught_by="shape")
def batch_joined_with_windows(X, kernel_size, **options):
    return im2col(X, kernel_size, **options).transpose(0, 1).flatten(1)


@exercise.wrong("Dilation spaces the cells inside a window, stride spaces the windows: these are mixed up.")
def dilation_as_stride(X, kernel_size, *, stride=1, padding=0, dilation=1):
    im2col(X, kernel_size, stride=stride, padding=padding, dilation=dilation)
    (sh, sw), (dh, dw) = _pair(stride), _pair(dilation)
    return im2col(X, kernel_size, stride=(sh * dh, sw * dw), padding=padding)


@exercise.wrong("Dilation is not applied: neighbouring cells of a window lie `dilation` pixels apart.")
def dilation_ignored(X, kernel_size, *, stride=1, padding=0, dilation=1):
    im2col(X, kernel_size, stride=stride, padding=padding, dilation=dilation)
    return im2col(X, kernel_size, stride=stride, padding=padding)


@exercise.wrong("Stride is not applied: neighbouring windows start `stride` pixels apart.")
def stride_ignored(X, kernel_size, *, stride=1, padding=0, dilation=1):
    im2col(X, kernel_size, stride=stride, padding=padding, dilation=dilation)
    return im2col(X, kernel_size, padding=padding, dilation=dilation)


@exercise.wrong(
    "With a 1 x 1 kernel a reshape can still be a view of X: a write into the result would change X. Copy.",
    caught_by="inputs",
)
def view_for_small_kernels(X, kernel_size, **options):
    if X.ndim == 4 and _pair(kernel_size) == (1, 1) and _pair(options.get("padding", 0)) == (0, 0):
        return X[:, :, :: _pair(options.get("stride", 1))[0], :: _pair(options.get("stride", 1))[1]].flatten(2)
    return im2col(X, kernel_size, **options)


@exercise.wrong("Pad the images, not the finished windows: windows at the border are partly inside.")
def pads_the_windows(X, kernel_size, *, stride=1, padding=0, dilation=1):
    good = im2col(X, kernel_size, stride=stride, padding=padding, dilation=dilation)
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = map(_pair, (kernel_size, stride, padding, dilation))
    if X.size(2) < dh * (kh - 1) + 1 or X.size(3) < dw * (kw - 1) + 1:
        return torch.zeros_like(good)
    view = as_view(X, kernel_size, stride=stride, dilation=dilation).permute(0, 1, 4, 5, 2, 3)
    oh = conv_geometry([(kh, sh, ph, dh)], X.size(2))[0]
    ow = conv_geometry([(kw, sw, pw, dw)], X.size(3))[0]
    top, left = (oh - view.size(4)) // 2, (ow - view.size(5)) // 2
    view = F.pad(view, (left, ow - view.size(5) - left, top, oh - view.size(4) - top))
    return view.reshape(good.shape)


@exercise.wrong("F.pad lists the last axis first: (left, right, top, bottom).")
def padding_axes_swapped(X, kernel_size, *, stride=1, padding=0, dilation=1):
    good = im2col(X, kernel_size, stride=stride, padding=padding, dilation=dilation)
    ph, pw = _pair(padding)
    kh, kw = _pair(kernel_size)
    dh, dw = _pair(dilation)
    if X.size(2) + 2 * pw < dh * (kh - 1) + 1 or X.size(3) + 2 * ph < dw * (kw - 1) + 1:
        return good
    return im2col(X, kernel_size, stride=stride, padding=(pw, ph), dilation=dilation)


@exercise.wrong("`if ph:` skips the padding on the left and right when ph is 0: look at both numbers.")
def pads_only_if_rows_are_padded(X, kernel_size, *, stride=1, padding=0, dilation=1):
    good = im2col(X, kernel_size, stride=stride, padding=padding, dilation=dilation)
    if _pair(padding)[0] or X.size(3) < _pair(dilation)[1] * (_pair(kernel_size)[1] - 1) + 1:
        return good
    return im2col(X, kernel_size, stride=stride, dilation=dilation)


@exercise.wrong("Padding goes on both sides of an axis; all of it on one side shifts every window.")
def padding_after_only(X, kernel_size, *, stride=1, padding=0, dilation=1):
    ph, pw = _pair(padding)
    view = as_view(X, kernel_size, stride=stride, padding=padding, dilation=dilation, pad=(0, 2 * pw, 0, 2 * ph))
    N, C, oh, ow, kh, kw = view.shape
    return view.permute(0, 1, 4, 5, 2, 3).reshape(N, C * kh * kw, oh * ow)


@exercise.wrong("Padding is zeros here, not a repeated border.")
def border_repeated(X, kernel_size, *, stride=1, padding=0, dilation=1):
    good = im2col(X, kernel_size, stride=stride, padding=padding, dilation=dilation)
    ph, pw = _pair(padding)
    if not X.numel() or not (ph or pw):
        return good
    X = F.pad(X, (pw, pw, ph, ph), mode="replicate")
    return im2col(X, kernel_size, stride=stride, dilation=dilation)


@exercise.wrong("A pair is (vertical, horizontal): the stride of the rows comes first.")
def stride_axes_swapped(X, kernel_size, *, stride=1, padding=0, dilation=1):
    im2col(X, kernel_size, stride=stride, padding=padding, dilation=dilation)
    return im2col(X, kernel_size, stride=_pair(stride)[::-1], padding=padding, dilation=dilation)


@exercise.wrong("A pair is (vertical, horizontal): the dilation of the rows comes first.")
def dilation_axes_swapped(X, kernel_size, *, stride=1, padding=0, dilation=1):
    good = im2col(X, kernel_size, stride=stride, padding=padding, dilation=dilation)
    try:
        return im2col(X, kernel_size, stride=stride, padding=padding, dilation=_pair(dilation)[::-1])
    except ValueError:
        return torch.zeros_like(good)


@exercise.wrong("Options may be pairs: the first number is not valid for both axes.")
def first_of_each_pair(X, kernel_size, *, stride=1, padding=0, dilation=1):
    good = im2col(X, kernel_size, stride=stride, padding=padding, dilation=dilation)
    sh, ph, dh = _pair(stride)[0], _pair(padding)[0], _pair(dilation)[0]
    try:
        return im2col(X, kernel_size, stride=sh, padding=ph, dilation=dh)
    except ValueError:
        return torch.zeros_like(good)


@exercise.wrong("A window that sticks out gives no column: round down.")
def incomplete_windows_kept(X, kernel_size, *, stride=1, padding=0, dilation=1):
    im2col(X, kernel_size, stride=stride, padding=padding, dilation=dilation)
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = map(_pair, (kernel_size, stride, padding, dilation))
    more_h = -(X.size(2) + 2 * ph - dh * (kh - 1) - 1) % sh
    more_w = -(X.size(3) + 2 * pw - dw * (kw - 1) - 1) % sw
    return im2col(F.pad(X, (pw, pw + more_w, ph, ph + more_h)), kernel_size, stride=stride, dilation=dilation)


@exercise.wrong("One slice and one copy per window is slow: make all windows one view.", caught_by="growth")
def loop_over_windows(X, kernel_size, **options):
    view = as_view(X, kernel_size, **options)
    columns = [view[:, :, i, j].flatten(1) for i in range(view.size(2)) for j in range(view.size(3))]
    return torch.stack(columns, -1)


@exercise.wrong(
    "An int64 index table for every cell of every window takes a lot of memory on top: strides say the same for free.",
    caught_by="cost",
)
def index_tables(X, kernel_size, *, stride=1, padding=0, dilation=1):
    view = as_view(X, kernel_size, stride=stride, padding=padding, dilation=dilation)
    N, C, oh, ow, kh, kw = view.shape
    (sh, sw), (ph, pw), (dh, dw) = map(_pair, (stride, padding, dilation))
    padded = F.pad(X, (pw, pw, ph, ph))
    rows = (torch.arange(kh) * dh)[:, None, None, None] + (torch.arange(oh) * sh)[:, None]
    columns = (torch.arange(kw) * dw)[:, None, None] + torch.arange(ow) * sw
    index = (torch.arange(C)[:, None, None, None, None] * padded.size(2) + rows) * padded.size(3) + columns
    return padded.flatten(1)[:, index.flatten()].reshape(N, C * kh * kw, oh * ow)


@exercise.wrong(
    "A copy per kernel cell grows with the kernel: slices are free, so stack them all in one step.", caught_by="growth"
)
def writes_cell_by_cell(X, kernel_size, *, stride=1, padding=0, dilation=1):
    view = as_view(X, kernel_size, stride=stride, padding=padding, dilation=dilation)
    N, C, oh, ow, kh, kw = view.shape
    columns = X.new_zeros(N, C, kh, kw, oh, ow)
    for a in range(kh):
        for b in range(kw):
            columns[:, :, a, b] = view[..., a, b]
    return columns.view(N, C * kh * kw, oh * ow)


@exercise.wrong("torch.zeros makes float32 whatever X is: use X.new_zeros, or F.pad.", caught_by="dtype")
def padded_with_float32(X, kernel_size, *, stride=1, padding=0, dilation=1):
    as_view(X, kernel_size, stride=stride, padding=padding, dilation=dilation)
    ph, pw = _pair(padding)
    N, C, H, W = X.shape
    padded = torch.zeros(N, C, H + 2 * ph, W + 2 * pw)
    padded[:, :, ph : ph + H, pw : pw + W] = X
    return im2col(padded, kernel_size, stride=stride, dilation=dilation)


@exercise.wrong("A dilated window spans d(k - 1) + 1 pixels, not d * k: the last windows are lost.", caught_by="shape")
def span_of_d_times_k(X, kernel_size, *, stride=1, padding=0, dilation=1):
    good = im2col(X, kernel_size, stride=stride, padding=padding, dilation=dilation)
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = map(_pair, (kernel_size, stride, padding, dilation))
    padded = F.pad(X, (pw, pw, ph, ph))
    if padded.size(2) < kh * dh or padded.size(3) < kw * dw:
        return good[:, :, :0].clone()
    view = padded.unfold(2, dh * kh, sh).unfold(3, dw * kw, sw)[..., ::dh, ::dw]
    return view.permute(0, 1, 4, 5, 2, 3).reshape(*good.shape[:2], view.size(2) * view.size(3))


@exercise.wrong("-1 cannot be worked out when there are no images: give every size.", caught_by="runs")
def minus_one_in_the_shape(X, kernel_size, **options):
    view = as_view(X, kernel_size, **options).permute(0, 1, 4, 5, 2, 3)
    return view.reshape(X.size(0), -1, view.size(4) * view.size(5)).clone()


@exercise.wrong("detach() or no_grad() cuts the graph: no gradient reaches the images.", caught_by="gradients")
def cuts_the_graph(X, kernel_size, **options):
    return im2col(X.detach(), kernel_size, **options)


@exercise.wrong(
    "F.unfold is what this exercise rebuilds (Tensor.unfold, which makes a view, is fine).", caught_by="forbidden"
)
def the_library(X, kernel_size, *, stride=1, padding=0, dilation=1):
    as_view(X, kernel_size, stride=stride, padding=padding, dilation=dilation)
    return F.unfold(X, kernel_size, dilation=dilation, padding=padding, stride=stride)


@exercise.wrong("A batch axis is required: a single 3-D image is a ValueError.", caught_by="errors")
def accepts_one_image(X, kernel_size, **options):
    return im2col(X[None], kernel_size, **options)[0] if X.ndim == 3 else im2col(X, kernel_size, **options)


@exercise.wrong(
    "Check the options yourself: torch reports a bad one as RuntimeError, or not at all.", caught_by="errors"
)
def errors_left_to_torch(X, kernel_size, *, stride=1, padding=0, dilation=1):
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = map(_pair, (kernel_size, stride, padding, dilation))
    padded = F.pad(X, (pw, pw, ph, ph))
    view = padded.unfold(2, dh * (kh - 1) + 1, sh).unfold(3, dw * (kw - 1) + 1, sw)[..., ::dh, ::dw]
    N, C, oh, ow, kh, kw = view.shape
    return view.permute(0, 1, 4, 5, 2, 3).reshape(N, C * kh * kw, oh * ow)


@exercise.wrong("A negative padding is a mistake of the caller, not a way to crop: ValueError.", caught_by="errors")
def negative_padding_crops(X, kernel_size, *, stride=1, padding=0, dilation=1):
    ph, pw = _pair(padding)
    if X.ndim == 4 and min(ph, pw) < 0:
        X, padding = F.pad(X, (pw, pw, ph, ph)), 0
    return im2col(X, kernel_size, stride=stride, padding=padding, dilation=dilation)


@exercise.right("strides written out by hand")
def by_strides(X, kernel_size, *, stride=1, padding=0, dilation=1):
    if X.ndim != 4:
        raise ValueError
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = map(_pair, (kernel_size, stride, padding, dilation))
    oh, ow = conv_geometry([(kh, sh, ph, dh)], X.size(2))[0], conv_geometry([(kw, sw, pw, dw)], X.size(3))[0]
    X = F.pad(X, (pw, pw, ph, ph))
    n, c, y, x = X.stride()
    view = X.as_strided((*X.shape[:2], kh, kw, oh, ow), (n, c, y * dh, x * dw, y * sh, x * sw), X.storage_offset())
    return view.clone(memory_format=torch.contiguous_format).view(X.size(0), X.size(1) * kh * kw, oh * ow)


@exercise.right("one slice per kernel cell, stacked")
def stacked_slices(X, kernel_size, *, stride=1, padding=0, dilation=1):
    if X.ndim != 4:
        raise ValueError
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = map(_pair, (kernel_size, stride, padding, dilation))
    oh, ow = conv_geometry([(kh, sh, ph, dh)], X.size(2))[0], conv_geometry([(kw, sw, pw, dw)], X.size(3))[0]
    X = F.pad(X, (pw, pw, ph, ph))
    slices = [
        X[:, :, a * dh : a * dh + (oh - 1) * sh + 1 : sh, b * dw : b * dw + (ow - 1) * sw + 1 : sw]
        for a in range(kh)
        for b in range(kw)
    ]
    return torch.stack(slices, 2).reshape(X.size(0), X.size(1) * kh * kw, oh * ow)


@exercise.right("row and column numbers that broadcast")
def broadcast_indices(X, kernel_size, *, stride=1, padding=0, dilation=1):
    N, C, oh, ow, kh, kw = as_view(X, kernel_size, stride=stride, padding=padding, dilation=dilation).shape
    (sh, sw), (ph, pw), (dh, dw) = map(_pair, (stride, padding, dilation))
    rows = dh * torch.arange(kh)[:, None] + sh * torch.arange(oh)
    columns = dw * torch.arange(kw)[:, None] + sw * torch.arange(ow)
    X = F.pad(X, (pw, pw, ph, ph))
    return X[:, :, rows[:, None, :, None], columns[None, :, None, :]].reshape(N, C * kh * kw, oh * ow)


@exercise.right("padding first, then the axes one after the other")
def axis_by_axis(X, kernel_size, *, stride=1, padding=0, dilation=1):
    view = as_view(X, kernel_size, stride=stride, padding=padding, dilation=dilation)
    N, C, oh, ow, kh, kw = view.shape
    return view.movedim((4, 5), (2, 3)).reshape(N, C * kh * kw, oh * ow)
