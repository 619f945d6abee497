"""A convolution written out as the matrix of a linear layer."""

import torch
import torch.nn.functional as F
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.convolution import FORBID
from reference.convolution.conv_geometry import conv_geometry

Pair = int | tuple[int, int]


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def conv_as_linear(weight: Tensor, in_size: tuple[int, int], *, stride: Pair = 1, padding: Pair = 0) -> Tensor:
    """Build the dense matrix M for which M @ X.flatten() is the flattened convolution of one image X, as by conv2d.

    Args:
        weight: filters, float, shape (Co, C, kh, kw).
        in_size: height H and width W of the image.
        stride: pixels from one window to the next. Pair = int | tuple[int, int]: (vertical, horizontal), and an int
            stands for both.
        padding: zeros added on every side: (above and below, left and right). They get no columns.

    Returns:
        M of shape (Co * oh * ow, C * H * W), of weight's dtype; along each axis the number of windows is
        (n + 2p - k) // s + 1. Rows are outputs and columns pixels, both flattened in the order channel, row, column.
        Every cell of weight stands in M once per output position of its channel (fewer times if padding hides it),
        all other entries are 0. Differentiable in weight: the gradients of a cell's copies add up.
        At most 6 * kh * kw + 20 torch operations, however large C, Co, H and W are.

    Raises:
        ValueError: weight is not 4-D; a kernel size or stride is below 1; H or W is below 1; a padding is negative;
            or no window fits along an axis.

    Example:
        >>> conv_as_linear(torch.arange(4.0).reshape(1, 1, 2, 2), (3, 3))
        tensor([[0., 1., 0., 2., 3., 0., 0., 0., 0.],
                [0., 0., 1., 0., 2., 3., 0., 0., 0.],
                [0., 0., 0., 0., 1., 0., 2., 3., 0.],
                [0., 0., 0., 0., 0., 1., 0., 2., 3.]])
    """
    if weight.ndim != 4:
        raise ValueError(f"weight must be 4-D, got {weight.ndim}-D")
    Co, C, kh, kw = weight.shape

    def meets(k: int, s: int, p: int, n: int) -> Tensor:
        """Return 1 at [a, i, y] where cell a of window i lies on pixel y, along one axis."""
        size = conv_geometry([(k, s, p, 1)], n)[0]
        cell, window, pixel = (torch.arange(m, device=weight.device) for m in (k, size, n))
        return (cell[:, None, None] + s * window[:, None] - p == pixel).to(weight.dtype)

    down, across = (meets(*axis) for axis in zip((kh, kw), _pair(stride), _pair(padding), in_size, strict=True))
    M = torch.einsum("ocab,aiy,bjx->oijcyx", weight, down, across)
    return M.reshape(Co * down.size(1) * across.size(1), C * in_size[0] * in_size[1])


exercise = Exercise(
    conv_as_linear,
    points=8,
    extra=True,
    gradients=("weight",),
    cost=Cost(ops=6 * 4 + 20),
    forbid=FORBID,
    uses=("conv_geometry",),
    hints=(
        "Think of M with six axes, (o, i, j, c, y, x): where is an entry not 0, and which cell of weight stands there?",
        "M[o, i, j, c, y, x] = weight[o, c, y + p - i * s, x + p - j * s], where these are valid cells.",
        "Make A[a, i, y] = 1 where a + i * s - p == y by comparing aranges, B[b, j, x] in the same way; then "
        'einsum("ocab,aiy,bjx->oijcyx", weight, A, B) and a reshape.',
    ),
    source="D2L convolutional-neural-networks/why-conv; computer-vision/transposed-conv",
)


@exercise.truth
def truth(weight, in_size, *, stride=1, padding=0):
    pixels = weight.size(1) * in_size[0] * in_size[1]
    images = torch.eye(pixels, dtype=weight.dtype).reshape(pixels, weight.size(1), *in_size)
    return F.conv2d(images, weight, None, stride, padding).flatten(1).T


def both_ways(f, weight, in_size, X, G, *, stride=1, padding=0):
    """Report what M makes of an image, what its transpose makes of outputs, and how empty it is."""
    M = f(weight, in_size, stride=stride, padding=padding)
    share = weight.size(2) * weight.size(3) / (in_size[0] * in_size[1])
    filled = float((M != 0).double().mean()) <= share
    return {
        "M @ X": M @ X.flatten(),
        "M.T @ G": M.T @ G.flatten(),
        "share of entries that are not 0 <= kh*kw/(H*W)": filled,
    }


@exercise.cases
def cases(draw):
    yield Case("the book's example", torch.arange(4.0).reshape(1, 1, 2, 2), (3, 3), cost=True)
    yield Case("2 to 3 channels", draw.normal(3, 2, 2, 3), (4, 5), cost=Cost(ops=6 * 6 + 20))
    yield Case("stride 2", draw.normal(2, 3, 3, 2), (6, 5), stride=2)
    yield Case("stride (2, 3), pixels left over", draw.normal(3, 2, 2, 3), (5, 8), stride=(2, 3))
    yield Case("padding 1", draw.normal(3, 2, 3, 2), (4, 5), padding=1)
    yield Case("padding (2, 1), stride (1, 2)", draw.normal(2, 3, 3, 2), (3, 5), stride=(1, 2), padding=(2, 1))
    yield Case("as many channels in as out", draw.normal(3, 3, 2, 2), (4, 3))
    yield Case("a 1x1 kernel", draw.normal(4, 3, 1, 1), (2, 3), edge=True)
    yield Case("a kernel as large as the image", draw.normal(3, 2, 3, 4), (3, 4), edge=True)
    yield Case("a kernel larger than the image, padded", draw.normal(2, 2, 3, 4), (2, 3), padding=(1, 2), edge=True)
    yield Case("padding larger than the kernel", draw.normal(2, 1, 1, 2), (2, 3), padding=(2, 3), edge=True)
    yield Case("float64", draw.normal(2, 3, 2, 2, dtype=torch.float64), (3, 4), padding=(0, 1))
    yield Case("there and back", draw.normal(3, 2, 2, 3), (5, 6), draw.normal(2, 5, 6), draw.normal(3, 3, 2),
               stride=(2, 3), padding=(1, 0), probe=both_ways)  # fmt: skip
    yield Case("tiny weights", 1e-3 * draw.normal(3, 2, 3, 2), (5, 4), padding=(1, 0), hidden=True)
    yield Case("weights with a large offset", draw.normal(2, 3, 2, 3) + 1e4, (4, 6), stride=(2, 1), hidden=True)
    yield Case("a transposed weight", draw.normal(2, 3, 2, 3).transpose(0, 1), (5, 4), padding=(0, 2), stride=(1, 2),
               hidden=True)  # fmt: skip
    yield Case("stride (3, 1), padding (2, 0)", draw.normal(2, 2, 3, 2), (6, 4), stride=(3, 1), padding=(2, 0),
               hidden=True)  # fmt: skip
    yield Case("3-D weight", draw.normal(2, 3, 3), (5, 6), raises=ValueError)
    yield Case("2-D weight", draw.normal(2, 3), (5, 6), raises=ValueError, hidden=True)
    yield Case("kernel too tall", draw.normal(2, 3, 4, 2), (3, 6), raises=ValueError)
    yield Case("kernel too wide", draw.normal(2, 3, 2, 4), (6, 3), raises=ValueError)
    yield Case("kernel much too wide", draw.normal(2, 3, 2, 9), (6, 3), padding=(3, 1), raises=ValueError, hidden=True)
    yield Case("stride 0", draw.normal(2, 3, 2, 2), (4, 5), stride=(1, 0), raises=ValueError)
    yield Case("negative stride", draw.normal(2, 3, 2, 2), (4, 5), stride=-1, raises=ValueError, hidden=True)
    yield Case("negative padding", draw.normal(2, 3, 2, 2), (4, 5), padding=(-1, 0), raises=ValueError)
    yield Case("no pixels", draw.normal(2, 3, 1, 2), (0, 5), raises=ValueError)
    yield Case("no pixels but padding", draw.normal(2, 3, 1, 2), (3, 0), padding=1, raises=ValueError)
    yield Case("an empty kernel", torch.zeros(2, 3, 0, 2), (4, 5), raises=ValueError, hidden=True)


@exercise.growth("rows", sizes=(6, 12), ops=0)
def more_rows(draw, size):
    return Case(f"{size} rows", draw.normal(2, 2, 2, 3), (size, 4))


@exercise.growth("columns", sizes=(6, 12), ops=0)
def more_columns(draw, size):
    return Case(f"{size} columns", draw.normal(2, 2, 2, 3), (4, size))


@exercise.growth("input channels", sizes=(4, 8), ops=0)
def more_inputs(draw, size):
    return Case(f"{size} channels", draw.normal(2, size, 2, 3), (3, 4))


@exercise.growth("output channels", sizes=(4, 8), ops=0)
def more_outputs(draw, size):
    return Case(f"{size} filters", draw.normal(size, 2, 2, 3), (3, 4))


def axes(M, weight, in_size):
    """Return M with six axes: output channel, row, column; input channel, row, column."""
    return M.unflatten(1, (weight.size(1), *in_size)).unflatten(0, (weight.size(0), -1))


def out_size(weight, in_size, stride, padding):
    layers = zip(weight.shape[2:], _pair(stride), _pair(padding), in_size, strict=True)
    return [conv_geometry([(k, s, p, 1)], n)[0] for k, s, p, n in layers]


@exercise.wrong(
    "One kernel, used at every position: all its copies belong to the same parameter, and their gradients add up.",
    caught_by="gradients",
)
def copies_per_position(weight, in_size, *, stride=1, padding=0):
    M = conv_as_linear(weight, in_size, stride=stride, padding=padding)
    free = torch.zeros_like(M)
    rows = M.size(0) // weight.size(0)
    free[::rows] = 1
    return M * free + M.detach() * (1 - free)


@exercise.wrong("Zeros outside the image are not inputs: they get no columns.", caught_by="shape")
def columns_for_padding(weight, in_size, *, stride=1, padding=0):
    conv_as_linear(weight, in_size, stride=stride, padding=padding)
    ph, pw = _pair(padding)
    return conv_as_linear(weight, (in_size[0] + 2 * ph, in_size[1] + 2 * pw), stride=stride)


@exercise.wrong("The channel is the slowest index of a column: X.flatten() is (channel, row, column).")
def columns_interleaved(weight, in_size, *, stride=1, padding=0):
    M = conv_as_linear(weight, in_size, stride=stride, padding=padding)
    return axes(M, weight, in_size).permute(0, 1, 3, 4, 2).reshape(M.shape)


@exercise.wrong("The output channel is the slowest index of a row: conv2d(X).flatten() is (channel, row, column).")
def rows_interleaved(weight, in_size, *, stride=1, padding=0):
    M = conv_as_linear(weight, in_size, stride=stride, padding=padding)
    return axes(M, weight, in_size).transpose(0, 1).reshape(M.shape)


@exercise.wrong("After kw cells jump to the next line of the image: kernel lines are not neighbours in X.flatten().")
def kernel_lines_joined(weight, in_size, *, stride=1, padding=0):
    M = conv_as_linear(weight, in_size, stride=stride, padding=padding)
    six, (Co, C, kh, kw) = axes(M, weight, in_size).flatten(3), weight.shape
    joined = torch.zeros_like(six)
    oh, ow = out_size(weight, in_size, stride, padding)
    (sh, sw), (ph, pw) = _pair(stride), _pair(padding)
    for i in range(oh):
        for j in range(ow):
            start = max(i * sh - ph, 0) * in_size[1] + max(j * sw - pw, 0)
            room = min(kh * kw, joined.size(-1) - start)
            joined[:, i * ow + j, :, start : start + room] = weight.reshape(Co, C, kh * kw)[..., :room]
    return joined.reshape(M.shape)


@exercise.wrong("Rows of M are outputs, columns are pixels: this is the transpose.")
def transposed(weight, in_size, *, stride=1, padding=0):
    return conv_as_linear(weight, in_size, stride=stride, padding=padding).T.contiguous()


@exercise.wrong("The kernel is not flipped: cell (0, 0) meets the window's first pixel.")
def kernel_flipped(weight, in_size, *, stride=1, padding=0):
    conv_as_linear(weight, in_size, stride=stride, padding=padding)
    return conv_as_linear(weight.flip(2, 3), in_size, stride=stride, padding=padding)


@exercise.wrong("Windows are numbered row by row, as in Y.flatten().")
def windows_column_by_column(weight, in_size, *, stride=1, padding=0):
    M = conv_as_linear(weight, in_size, stride=stride, padding=padding)
    oh, ow = out_size(weight, in_size, stride, padding)
    return M.unflatten(0, (-1, oh, ow)).transpose(1, 2).reshape(M.shape)


@exercise.wrong("Pixels are numbered row by row, as in X.flatten().")
def pixels_column_by_column(weight, in_size, *, stride=1, padding=0):
    M = conv_as_linear(weight, in_size, stride=stride, padding=padding)
    return M.unflatten(1, (-1, *in_size)).transpose(2, 3).reshape(M.shape)


@exercise.wrong("in_size is (height, width), in this order.")
def width_before_height(weight, in_size, *, stride=1, padding=0):
    good = conv_as_linear(weight, in_size, stride=stride, padding=padding)
    try:
        return conv_as_linear(weight, in_size[::-1], stride=stride, padding=padding)
    except ValueError:
        return torch.zeros_like(good)


@exercise.wrong("Stride is not applied: neighbouring windows start `stride` pixels apart.", caught_by="shape")
def stride_ignored(weight, in_size, *, stride=1, padding=0):
    conv_as_linear(weight, in_size, stride=stride, padding=padding)
    return conv_as_linear(weight, in_size, padding=padding)


@exercise.wrong("Pairs are (vertical, horizontal): the stride of the rows comes first.")
def stride_axes_swapped(weight, in_size, *, stride=1, padding=0):
    conv_as_linear(weight, in_size, stride=stride, padding=padding)
    return conv_as_linear(weight, in_size, stride=_pair(stride)[::-1], padding=padding)


@exercise.wrong("Pairs are (vertical, horizontal): the padding of the rows comes first.")
def padding_axes_swapped(weight, in_size, *, stride=1, padding=0):
    good = conv_as_linear(weight, in_size, stride=stride, padding=padding)
    try:
        return conv_as_linear(weight, in_size, stride=stride, padding=_pair(padding)[::-1])
    except ValueError:
        return torch.zeros_like(good)


@exercise.wrong("Padding shifts the windows: window 0 starts p pixels before the image.")
def padding_after_only(weight, in_size, *, stride=1, padding=0):
    good = conv_as_linear(weight, in_size, stride=stride, padding=padding)
    ph, pw = _pair(padding)
    wide = conv_as_linear(weight, (in_size[0] + 2 * ph, in_size[1] + 2 * pw), stride=stride)
    return wide.unflatten(1, (-1, in_size[0] + 2 * ph, in_size[1] + 2 * pw))[:, :, : in_size[0], : in_size[1]].reshape(
        good.shape
    )


@exercise.wrong("[ph:-ph] is empty when ph is 0: crop to [ph : ph + H].", caught_by="shape")
def cropped_with_minus_zero(weight, in_size, *, stride=1, padding=0):
    good = conv_as_linear(weight, in_size, stride=stride, padding=padding)
    ph, pw = _pair(padding)
    if not (ph or pw):
        return good
    H, W = in_size[0] + 2 * ph, in_size[1] + 2 * pw
    wide = conv_as_linear(weight, (H, W), stride=stride).unflatten(1, (-1, H, W))
    return wide[:, :, ph:-ph, pw:-pw].flatten(1)


@exercise.wrong(
    "Windows that reach into the padding lose the cells outside, they do not wrap around to the other side."
)
def wraps_around(weight, in_size, *, stride=1, padding=0):
    M = conv_as_linear(weight, in_size, stride=stride, padding=padding)
    (sh, sw), (ph, pw) = _pair(stride), _pair(padding)
    oh, ow = out_size(weight, in_size, stride, padding)
    six = M.new_zeros(weight.size(0), oh, ow, weight.size(1), *in_size)
    rows, columns = torch.arange(oh)[:, None] * sh - ph, torch.arange(ow) * sw - pw
    for a in range(weight.size(2)):
        for b in range(weight.size(3)):
            at = (slice(None), torch.arange(oh)[:, None], torch.arange(ow), slice(None),
                  (rows + a) % in_size[0], (columns + b) % in_size[1])  # fmt: skip
            six[at] = six[at] + weight[:, :, a, b]
    return six.reshape(M.shape)


@exercise.wrong("Every output channel has filters of its own for every input channel: weight[o, c].")
def one_kernel_for_all_inputs(weight, in_size, *, stride=1, padding=0):
    conv_as_linear(weight, in_size, stride=stride, padding=padding)
    return conv_as_linear(weight[:, :1].expand_as(weight), in_size, stride=stride, padding=padding)


@exercise.wrong("torch.zeros makes float32 whatever weight is: use weight.new_zeros.", caught_by="dtype")
def zeros_without_dtype(weight, in_size, *, stride=1, padding=0):
    M = conv_as_linear(weight, in_size, stride=stride, padding=padding)
    found = torch.zeros(M.shape)
    found += M
    return found


@exercise.wrong(
    "`.data`, detach() or item() on weight: the matrix would not pass a gradient on.", caught_by="gradients"
)
def cuts_the_graph(weight, in_size, *, stride=1, padding=0):
    return conv_as_linear(weight.detach(), in_size, stride=stride, padding=padding)


@exercise.wrong("A loop over output positions grows with the image: loop over the kernel's cells.", caught_by="growth")
def loop_over_positions(weight, in_size, *, stride=1, padding=0):
    if weight.ndim != 4:
        raise ValueError
    oh, ow = out_size(weight, in_size, stride, padding)
    (sh, sw), (ph, pw), (kh, kw) = _pair(stride), _pair(padding), weight.shape[2:]
    H, W = in_size[0] + 2 * ph, in_size[1] + 2 * pw
    places = [(i * sh, j * sw) for i in range(oh) for j in range(ow)]
    images = [F.pad(weight, (j, W - j - kw, i, H - i - kh)) for i, j in places]
    images = [image[:, :, ph : ph + in_size[0], pw : pw + in_size[1]].flatten(1) for image in images]
    return torch.stack(images, 1).flatten(0, 1)


@exercise.wrong(
    "A column per pixel in a loop is C * H * W calls: write all copies of a kernel cell at once.", caught_by="growth"
)
def loop_over_pixels(weight, in_size, *, stride=1, padding=0):
    M = conv_as_linear(weight, in_size, stride=stride, padding=padding)
    return torch.stack([M[:, n] * 1 for n in range(M.size(1))], 1)


@exercise.wrong(
    "A loop over the filters grows with them: the channels are plain axes of the result.", caught_by="growth"
)
def loop_over_filters(weight, in_size, *, stride=1, padding=0):
    if weight.ndim != 4:
        raise ValueError
    return torch.cat([conv_as_linear(one[None], in_size, stride=stride, padding=padding) for one in weight])


@exercise.wrong(
    "Check the sizes yourself: a kernel that does not fit gives an empty matrix, not an error.", caught_by="errors"
)
def empty_matrix_for_no_window(weight, in_size, *, stride=1, padding=0):
    try:
        return conv_as_linear(weight, in_size, stride=stride, padding=padding)
    except ValueError:
        if weight.ndim != 4 or min(_pair(stride)) < 1 or min(_pair(padding)) < 0 or min(in_size) < 1:
            raise
        return weight.new_zeros(0, weight.size(1) * in_size[0] * in_size[1])


@exercise.wrong("An image without rows or columns is refused, whatever the padding.", caught_by="errors")
def empty_images_accepted(weight, in_size, *, stride=1, padding=0):
    if weight.ndim == 4 and min(in_size) < 1 and min(_pair(padding)) > 0:
        return weight.new_zeros(weight.size(0), 0)
    return conv_as_linear(weight, in_size, stride=stride, padding=padding)


@exercise.wrong("F.conv2d on unit images is the oracle of this exercise, not a solution.", caught_by="forbidden")
def by_unit_images(weight, in_size, *, stride=1, padding=0):
    conv_as_linear(weight, in_size, stride=stride, padding=padding)
    return truth(weight, in_size, stride=stride, padding=padding)


@exercise.right("one indexed write per kernel cell")
def by_kernel_cells(weight, in_size, *, stride=1, padding=0):
    if weight.ndim != 4:
        raise ValueError
    (Co, C, kh, kw), (sh, sw), (ph, pw) = weight.shape, _pair(stride), _pair(padding)
    oh, ow = out_size(weight, in_size, stride, padding)
    M = weight.new_zeros(oh, ow, Co, C, in_size[0] + 2 * ph, in_size[1] + 2 * pw)
    i, j = torch.arange(oh)[:, None], torch.arange(ow)
    for a in range(kh):
        for b in range(kw):
            M[i, j, :, :, i * sh + a, j * sw + b] = weight[:, :, a, b]
    M = M[..., ph : ph + in_size[0], pw : pw + in_size[1]]
    return M.permute(2, 0, 1, 3, 4, 5).reshape(Co * oh * ow, C * in_size[0] * in_size[1])


@exercise.right("weight looked up at the distance of pixel and window")
def by_lookup(weight, in_size, *, stride=1, padding=0):
    if weight.ndim != 4:
        raise ValueError
    (Co, C, kh, kw), (sh, sw), (ph, pw) = weight.shape, _pair(stride), _pair(padding)
    oh, ow = out_size(weight, in_size, stride, padding)
    a = torch.arange(in_size[0]) + ph - sh * torch.arange(oh)[:, None]
    b = torch.arange(in_size[1]) + pw - sw * torch.arange(ow)[:, None]
    inside = ((a >= 0) & (a < kh))[:, None, :, None] & ((b >= 0) & (b < kw))[None, :, None, :]
    found = weight[:, :, a.clamp(0, kh - 1)[:, None, :, None], b.clamp(0, kw - 1)[None, :, None, :]]
    return torch.where(inside, found, 0.0).permute(0, 2, 3, 1, 4, 5).reshape(Co * oh * ow, C * in_size[0] * in_size[1])
