"""Two-dimensional convolution with many channels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.convolution import FORBID
from reference.convolution.conv_geometry import conv_geometry
from reference.convolution.im2col import im2col

Pair = int | tuple[int, int]


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def conv2d(
    X: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve images with a bank of filters: a cross-correlation summed over the input channels.

    Args:
        X: images, float, shape (N, C, H, W); any memory layout, also channels-last. N may be 0.
        weight: filters, shape (Co, C / groups, kh, kw), not flipped.
        bias: one number per output channel, shape (Co,), or None.
        stride: pixels from one window to the next. Pair = int | tuple[int, int]: (vertical, horizontal), and an int
            stands for both.
        padding: zeros added on every side: (above and below, left and right).
        dilation: pixels from one cell of a window to the next.
        groups: the channels fall into so many equal parts, in order; output channel o belongs to group
            o // (Co / groups) and reads the C / groups input channels of that group only.

    Returns:
        Tensor of shape (N, Co, oh, ow), of X's dtype; along each axis the size is
        floor((n + 2p - d(k - 1) - 1) / s) + 1. Differentiable in X, weight and bias.
        At most 4 * kh * kw + 20 torch operations, however large N, C, Co, groups, H and W are.

    Raises:
        ValueError: X or weight is not 4-D; a kernel size, stride or dilation is below 1; a padding is negative; no
            window fits along an axis; groups is below 1; C is not weight.size(1) * groups; Co is not a multiple of
            groups; or bias is not of shape (Co,).

    Example:
        >>> X = torch.stack([torch.arange(9.0).reshape(3, 3), torch.arange(1.0, 10.0).reshape(3, 3)])
        >>> K = torch.stack([torch.arange(4.0).reshape(2, 2), torch.arange(1.0, 5.0).reshape(2, 2)])
        >>> conv2d(X[None], K[None])
        tensor([[[[ 56.,  72.],
                  [104., 120.]]]])
    """
    if X.ndim != 4 or weight.ndim != 4:
        raise ValueError(f"X and weight must be 4-D, got {X.ndim}-D and {weight.ndim}-D")
    (N, C, H, W), (Co, Cg, kh, kw) = X.shape, weight.shape
    if groups < 1 or C != Cg * groups or Co % groups:
        raise ValueError(f"{C} input and {Co} output channels, {groups} groups: weight has the wrong shape")
    if bias is not None and bias.shape != (Co,):
        raise ValueError(f"bias must have shape ({Co},), got {tuple(bias.shape)}")
    (sh, sw), (ph, pw), (dh, dw) = map(_pair, (stride, padding, dilation))
    oh = conv_geometry([(kh, sh, ph, dh)], H)[0]
    ow = conv_geometry([(kw, sw, pw, dw)], W)[0]
    columns = im2col(X, (kh, kw), stride=stride, padding=padding, dilation=dilation)
    columns = columns.view(N, groups, Cg * kh * kw, oh * ow)
    filters = weight.reshape(groups, Co // groups, Cg * kh * kw)
    Y = torch.einsum("gok,ngkl->ngol", filters, columns).reshape(N, Co, oh, ow)
    return Y if bias is None else Y + bias.view(Co, 1, 1)


exercise = Exercise(
    conv2d,
    points=12,
    gradients=("X", "weight", "bias"),
    cost=Cost(ops=4 * 9 + 20),
    forbid=FORBID,
    uses=("conv_geometry", "im2col"),
    hints=(
        "Without groups a convolution is one matrix product: filters as rows, im2col's windows as columns.",
        "Groups become a batch axis of that product: split the rows of im2col and the filters into `groups` parts.",
        "filters (groups, Co / groups, K) and columns (N, groups, K, L) give (N, groups, Co / groups, L), with "
        "K = C / groups * kh * kw. Reshape to (N, Co, oh, ow) and add bias as (Co, 1, 1).",
    ),
    source="D2L convolutional-neural-networks/channels, padding-and-strides; convolutional-modern/resnet",
)


@exercise.truth
def truth(X, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    return F.conv2d(X, weight, bias, stride, padding, dilation, groups)


@exercise.cases
def cases(draw):
    ramp = torch.arange(9.0).reshape(3, 3)
    yield Case(
        "the book's two channels",
        torch.stack([ramp, ramp + 1])[None],
        torch.stack([ramp[:2, :2] - torch.tensor([[0], [1]]), ramp[:2, :2] + torch.tensor([[1], [0]])])[None],
    )
    yield Case("3 to 4 channels with bias", draw.normal(2, 3, 5, 6), draw.normal(4, 3, 2, 3), draw.normal(4))
    yield Case("without bias", draw.normal(3, 2, 6, 5), draw.normal(3, 2, 3, 2), stride=(1, 2))
    yield Case("a 3x3 kernel, padding 1", draw.normal(3, 2, 6, 7), draw.normal(5, 2, 3, 3), draw.normal(5), padding=1,
               cost=Cost(ops=56))  # fmt: skip
    yield Case("all options unequal", draw.normal(2, 4, 9, 11), draw.normal(6, 2, 3, 2), draw.normal(6),
               stride=(2, 3), padding=(1, 2), dilation=(2, 1), groups=2)  # fmt: skip
    yield Case("stride, padding, dilation as int", draw.normal(2, 2, 9, 8), draw.normal(3, 2, 2, 3), draw.normal(3),
               stride=3, padding=2, dilation=2)  # fmt: skip
    yield Case("2 groups", draw.normal(2, 6, 4, 5), draw.normal(4, 3, 2, 3), draw.normal(4), groups=2,
               cost=Cost(ops=4 * 6 + 20))  # fmt: skip
    yield Case("depthwise", draw.normal(2, 3, 6, 5), draw.normal(3, 1, 2, 3), draw.normal(3), groups=3)
    yield Case("depthwise, two filters a channel", draw.normal(2, 3, 5, 4), draw.normal(6, 1, 3, 2), draw.normal(6),
               padding=(1, 0), groups=3)  # fmt: skip
    yield Case("a 1x7 kernel", draw.normal(2, 3, 4, 9), draw.normal(2, 3, 1, 7), draw.normal(2), padding=(0, 3))
    yield Case("one output channel", draw.normal(2, 4, 5, 6), draw.normal(1, 4, 3, 2), draw.normal(1), edge=True)
    yield Case("one input channel", draw.normal(3, 1, 6, 4), draw.normal(2, 1, 2, 3), draw.normal(2), edge=True)
    yield Case("rows and columns are left over", draw.normal(2, 2, 8, 9), draw.normal(3, 2, 3, 2), stride=(2, 4))
    yield Case("5x5 kernel on 5x5 images", draw.normal(3, 2, 5, 5), draw.normal(4, 2, 5, 5), draw.normal(4), edge=True)
    yield Case("no images", draw.normal(0, 2, 5, 6), draw.normal(3, 2, 3, 2), draw.normal(3), edge=True)
    yield Case("channels-last", draw.normal(2, 3, 5, 6).to(memory_format=torch.channels_last),
               draw.normal(4, 3, 2, 3).to(memory_format=torch.channels_last), draw.normal(4))  # fmt: skip
    yield Case("float64", draw.normal(2, 2, 4, 5, dtype=torch.float64), draw.normal(3, 2, 2, 3, dtype=torch.float64),
               draw.normal(3, dtype=torch.float64), padding=(1, 2))  # fmt: skip
    yield Case("as many output channels as columns", draw.normal(2, 2, 5, 6), draw.normal(4, 2, 2, 3), draw.normal(4))
    yield Case("tiny values", 1e-3 * draw.normal(2, 3, 6, 4), draw.normal(4, 3, 3, 2), 1e-3 * draw.normal(4),
               stride=(2, 1), hidden=True)  # fmt: skip
    yield Case("a large offset", draw.normal(3, 2, 5, 7) + 1e3, draw.normal(4, 2, 3, 2), draw.normal(4),
               padding=(0, 1), hidden=True)  # fmt: skip
    yield Case("3 groups, all options", draw.normal(2, 6, 10, 9), draw.normal(9, 2, 2, 3), draw.normal(9),
               stride=(3, 2), padding=(2, 1), dilation=(1, 2), groups=3, hidden=True)  # fmt: skip
    yield Case("2 groups, channels-last", draw.normal(2, 4, 4, 5).to(memory_format=torch.channels_last),
               draw.normal(6, 2, 3, 2), groups=2, hidden=True)  # fmt: skip
    yield Case(
        "2 groups, no images", draw.normal(0, 4, 4, 5), draw.normal(6, 2, 3, 2), groups=2, edge=True, hidden=True
    )
    yield Case("depthwise, three filters a channel", draw.normal(3, 2, 5, 6), draw.normal(6, 1, 2, 3), draw.normal(6),
               dilation=(2, 1), groups=2, hidden=True)  # fmt: skip
    X, weight = draw.normal(2, 4, 5, 6), draw.normal(6, 4, 3, 2)
    yield Case("3-D images", draw.normal(4, 5, 6), weight, raises=ValueError)
    yield Case("3-D weight", X, draw.normal(4, 3, 2), raises=ValueError)
    yield Case("channels do not match", X, draw.normal(6, 3, 3, 2), raises=ValueError)
    yield Case("one-channel weight without groups", X, draw.normal(6, 1, 3, 2), raises=ValueError)
    yield Case("channels do not match the groups", X, weight, groups=2, raises=ValueError)
    yield Case("4 output channels in 3 groups", draw.normal(2, 6, 5, 6), draw.normal(4, 2, 3, 2), groups=3,
               raises=ValueError)  # fmt: skip
    yield Case("groups 0", X, weight, groups=0, raises=ValueError)
    yield Case("groups 0, images without channels", X[:, :0], weight, groups=0, raises=ValueError, hidden=True)
    yield Case("groups -2", X, draw.normal(6, 2, 3, 2), groups=-2, raises=ValueError, hidden=True)
    yield Case("bias of one number", X, weight, draw.normal(1), raises=ValueError)
    yield Case("bias of the wrong length", X, weight, draw.normal(4), raises=ValueError)
    yield Case("bias as a column", X, weight, draw.normal(6, 1), raises=ValueError)
    yield Case("bias as (Co, 1, 1)", X, weight, draw.normal(6, 1, 1), raises=ValueError, hidden=True)
    yield Case("kernel too tall", X, draw.normal(6, 4, 6, 2), raises=ValueError)
    yield Case("kernel too wide", X, draw.normal(6, 4, 2, 7), raises=ValueError, hidden=True)
    yield Case("dilated kernel too wide", X, weight, dilation=(1, 6), raises=ValueError)
    yield Case("stride 0", X, weight, stride=(0, 1), raises=ValueError)
    yield Case("dilation 0", X, weight, dilation=(1, 0), raises=ValueError)
    yield Case("negative padding", X, weight, padding=-1, raises=ValueError)
    yield Case("an empty kernel", X, torch.zeros(6, 4, 0, 2), raises=ValueError, hidden=True)


@exercise.growth("images", sizes=(4, 8), ops=0)
def more_images(draw, size):
    return Case(f"{size} images", draw.normal(size, 2, 4, 5), draw.normal(3, 2, 2, 3), draw.normal(3))


@exercise.growth("input channels", sizes=(4, 8), ops=0)
def more_inputs(draw, size):
    return Case(f"{size} channels", draw.normal(2, size, 4, 5), draw.normal(3, size, 2, 3), draw.normal(3))


@exercise.growth("output channels", sizes=(4, 8), ops=0)
def more_outputs(draw, size):
    return Case(f"{size} filters", draw.normal(2, 2, 4, 5), draw.normal(size, 2, 2, 3), draw.normal(size))


@exercise.growth("groups", sizes=(4, 8), ops=0)
def more_groups(draw, size):
    return Case(f"{size} groups", draw.normal(2, 16, 4, 5), draw.normal(16, 16 // size, 2, 3), groups=size)


@exercise.growth("rows", sizes=(8, 16), ops=0)
def more_rows(draw, size):
    return Case(f"{size} rows", draw.normal(2, 2, size, 5), draw.normal(3, 2, 2, 3), draw.normal(3))


@exercise.growth("columns", sizes=(8, 16), ops=0)
def more_columns(draw, size):
    return Case(f"{size} columns", draw.normal(2, 2, 4, size), draw.normal(3, 2, 2, 3), draw.normal(3))


def checked(X, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    """Raise what the contract names; return the result's size."""
    if X.ndim != 4 or weight.ndim != 4 or groups < 1:
        raise ValueError
    if X.size(1) != weight.size(1) * groups or weight.size(0) % groups:
        raise ValueError
    if bias is not None and bias.shape != (weight.size(0),):
        raise ValueError
    options = zip(weight.shape[2:], _pair(stride), _pair(padding), _pair(dilation), X.shape[2:], strict=True)
    oh, ow = (conv_geometry([tuple(layer)], size)[0] for *layer, size in options)
    return oh, ow


@exercise.wrong("Each filter sums over all the input channels of its group: one alone is not enough.")
def channels_kept_apart(X, weight, bias=None, **options):
    checked(X, weight, bias, **options)
    only = torch.zeros_like(weight)
    only[:, 0] = weight[:, 0]
    return conv2d(X, only, bias, **options)


@exercise.wrong("Each output channel owns a filter of its own, (C / groups, kh, kw): do not share one among them.")
def one_filter_for_all(X, weight, bias=None, **options):
    return conv2d(X, weight[:1].expand_as(weight), bias, **options)


@exercise.wrong("One kernel, kh x kw, for all input channels is not enough: a filter has one per input channel.")
def one_kernel_per_filter(X, weight, bias=None, **options):
    checked(X, weight, bias, **options)
    return conv2d(X, weight[:, :1].expand_as(weight), bias, **options)


@exercise.wrong("Bias is added once per output channel, not once for each input channel of the sum.")
def bias_per_input_channel(X, weight, bias=None, **options):
    checked(X, weight, bias, **options)
    return conv2d(X, weight, None if bias is None else bias * weight.size(1), **options)


@exercise.wrong("The bias is missing.")
def bias_ignored(X, weight, bias=None, **options):
    checked(X, weight, bias, **options)
    return conv2d(X, weight, **options)


@exercise.wrong("Y + bias lines the bias up with the columns: it belongs to the channels, shape (Co, 1, 1).")
def bias_along_the_columns(X, weight, bias=None, **options):
    Y = conv2d(X, weight, bias, **options) - (0 if bias is None else bias.view(-1, 1, 1))
    return Y if bias is None else Y + bias


@exercise.wrong("weight.size(1) is C / groups: its channel indices are local to the group, which starts further on.")
def every_group_reads_the_first_channels(X, weight, bias=None, *, groups=1, **options):
    checked(X, weight, bias, groups=groups, **options)
    X = X[:, : weight.size(1)].repeat(1, groups, 1, 1)
    return conv2d(X, weight, bias, groups=groups, **options)


@exercise.wrong("Groups are blocks of neighbouring channels: output o is in group o // (Co / groups), not o % groups.")
def output_groups_interleaved(X, weight, bias=None, *, groups=1, **options):
    checked(X, weight, bias, groups=groups, **options)
    Co = weight.size(0)
    order = torch.arange(Co).view(Co // groups, groups).T.flatten()
    Y = conv2d(X, weight[order], None if bias is None else bias[order], groups=groups, **options)
    return Y[:, order.argsort()]


@exercise.wrong("A group reads C / groups neighbouring channels, not every groups-th one.")
def input_groups_interleaved(X, weight, bias=None, *, groups=1, **options):
    checked(X, weight, bias, groups=groups, **options)
    order = torch.arange(X.size(1)).view(-1, groups).T.flatten()
    return conv2d(X[:, order], weight, bias, groups=groups, **options)


@exercise.wrong(
    "A loop over the groups grows with them: fold the group into a batch axis of the matmul.", caught_by="growth"
)
def loop_over_groups(X, weight, bias=None, *, groups=1, **options):
    checked(X, weight, bias, groups=groups, **options)
    parts = zip(X.chunk(groups, 1), weight.chunk(groups), strict=True)
    Y = torch.cat([conv2d(x, w, **options) for x, w in parts], 1)
    return Y if bias is None else Y + bias.view(-1, 1, 1)


@exercise.wrong("A loop over the images grows with the batch: matmul and einsum take a batch axis.", caught_by="growth")
def loop_over_images(X, weight, bias=None, **options):
    if X.ndim != 4 or X.size(0) == 0:
        return conv2d(X, weight, bias, **options)
    return torch.cat([conv2d(x[None], weight, bias, **options) for x in X])


@exercise.wrong("A loop over the filters grows with them: all filters are rows of one matrix.", caught_by="growth")
def loop_over_filters(X, weight, bias=None, *, groups=1, **options):
    checked(X, weight, bias, groups=groups, **options)
    size = weight.size(0) // groups
    maps = []
    for o in range(weight.size(0)):
        g, Cg = o // size, weight.size(1)
        maps.append(conv2d(X[:, g * Cg : (g + 1) * Cg], weight[o : o + 1], **options))
    Y = torch.cat(maps, 1)
    return Y if bias is None else Y + bias.view(-1, 1, 1)


@exercise.wrong("A loop over output pixels is thousands of calls: make all windows columns first.", caught_by="growth")
def loop_over_positions(X, weight, bias=None, *, groups=1, **options):
    oh, ow = checked(X, weight, bias, groups=groups, **options)
    (N, C), (Co, Cg, kh, kw) = X.shape[:2], weight.shape
    columns = im2col(X, (kh, kw), **options).view(N, groups, Cg * kh * kw, oh * ow)
    filters = weight.reshape(groups, Co // groups, Cg * kh * kw)
    Y = torch.stack([torch.einsum("gok,ngk->ngo", filters, columns[..., l]) for l in range(oh * ow)], -1)
    Y = Y.reshape(N, Co, oh, ow)
    return Y if bias is None else Y + bias.view(-1, 1, 1)


@exercise.wrong("F.pad lists the last axis first: (left, right, top, bottom).")
def padding_axes_swapped(X, weight, bias=None, *, padding=0, **options):
    good = conv2d(X, weight, bias, padding=padding, **options)
    try:
        return conv2d(X, weight, bias, padding=_pair(padding)[::-1], **options)
    except ValueError:
        return torch.zeros_like(good)


@exercise.wrong("Padding goes on both sides of an axis: all of it on one side shifts the picture.")
def padding_after_only(X, weight, bias=None, *, padding=0, **options):
    checked(X, weight, bias, padding=padding, **options)
    ph, pw = _pair(padding)
    return conv2d(F.pad(X, (0, 2 * pw, 0, 2 * ph)), weight, bias, **options)


@exercise.wrong("Padding is not applied: a ring of zeros makes the result larger.")
def padding_ignored(X, weight, bias=None, *, padding=0, **options):
    good = conv2d(X, weight, bias, padding=padding, **options)
    try:
        return conv2d(X, weight, bias, **options)
    except ValueError:
        return good[..., :0]


@exercise.wrong("The kernel is not flipped: what libraries call convolution is cross-correlation.")
def kernel_flipped(X, weight, bias=None, **options):
    checked(X, weight, bias, **options)
    return conv2d(X, weight.flip(2, 3), bias, **options)


@exercise.wrong("A pair is (vertical, horizontal): the stride of the rows comes first.")
def stride_axes_swapped(X, weight, bias=None, *, stride=1, **options):
    checked(X, weight, bias, stride=stride, **options)
    return conv2d(X, weight, bias, stride=_pair(stride)[::-1], **options)


@exercise.wrong("Stride is not applied.", caught_by="shape")
def stride_ignored(X, weight, bias=None, *, stride=1, **options):
    checked(X, weight, bias, stride=stride, **options)
    return conv2d(X, weight, bias, **options)


@exercise.wrong("Dilation is not applied: the cells of the kernel lie `dilation` pixels apart.")
def dilation_ignored(X, weight, bias=None, *, dilation=1, **options):
    checked(X, weight, bias, dilation=dilation, **options)
    return conv2d(X, weight, bias, **options)


@exercise.wrong("The matmul of (Co, K) with all windows gives (Co, N * L): a reshape to (N, Co, ...) mixes the images.")
def batch_mixed_into_channels(X, weight, bias=None, **options):
    Y = conv2d(X, weight, bias, **options)
    return Y.transpose(0, 1).reshape(Y.shape)


@exercise.wrong("The result is (N, Co, rows, columns): rows come first.")
def rows_and_columns_swapped(X, weight, bias=None, **options):
    return conv2d(X, weight, bias, **options).transpose(2, 3).contiguous()


@exercise.wrong("Filters sum over the channels; they do not average.")
def mean_over_channels(X, weight, bias=None, **options):
    checked(X, weight, bias, **options)
    return conv2d(X, weight / weight.size(1), bias, **options)


@exercise.wrong("-1 cannot be worked out when there are no images: give every size.", caught_by="runs")
def minus_one_in_the_shape(X, weight, bias=None, **options):
    Y = conv2d(X, weight, bias, **options)
    return Y.reshape(X.size(0), -1, *Y.shape[2:])


@exercise.wrong("detach() or `.data` on the filters: they would never learn.", caught_by="gradients")
def filters_detached(X, weight, bias=None, **options):
    return conv2d(X, weight.detach(), bias, **options)


@exercise.wrong("detach() or `.data` on the bias: it would never learn.", caught_by="gradients")
def bias_detached(X, weight, bias=None, **options):
    return conv2d(X, weight, None if bias is None else bias.detach(), **options)


@exercise.wrong("detach() on the images: layers below this one would never learn.", caught_by="gradients")
def images_detached(X, weight, bias=None, **options):
    return conv2d(X.detach(), weight, bias, **options)


@exercise.wrong("A bias of one number, or of another shape that happens to broadcast, is refused.", caught_by="errors")
def bias_unchecked(X, weight, bias=None, **options):
    Y = conv2d(X, weight, **options)
    if bias is None:
        return Y
    if bias.numel() not in (1, weight.size(0)):
        raise ValueError
    return Y + bias.flatten()[:, None, None]


@exercise.wrong(
    "A one-channel weight must not be broadcast over all channels: groups says how many it reads.", caught_by="errors"
)
def channels_unchecked(X, weight, bias=None, *, groups=1, **options):
    if X.ndim == weight.ndim == 4 and groups == 1 and weight.size(1) == 1:
        weight = weight.expand(-1, X.size(1), -1, -1)
    return conv2d(X, weight, bias, groups=groups, **options)


@exercise.wrong("Co must be a multiple of groups: left-over filters would read nothing.", caught_by="errors")
def left_over_filters_dropped(X, weight, bias=None, *, groups=1, **options):
    if groups > 0 and weight.size(0) % groups:
        weight = weight[: weight.size(0) // groups * groups]
        bias = None if bias is None else bias[: weight.size(0)]
    return conv2d(X, weight, bias, groups=groups, **options)


@exercise.wrong(
    "groups below 1 is a ValueError; C // groups comes too early, and divides by zero where groups is 0.",
    caught_by="errors",
)
def divides_by_groups_first(X, weight, bias=None, *, groups=1, **options):
    per_group = X.size(1) // groups
    if X.ndim == 4 and per_group * groups != X.size(1):
        raise ValueError
    return conv2d(X, weight, bias, groups=groups, **options)


@exercise.wrong("A batch axis is required: a single 3-D image is a ValueError.", caught_by="errors")
def accepts_one_image(X, weight, bias=None, **options):
    return conv2d(X[None] if X.ndim == 3 else X, weight, bias, **options)


@exercise.wrong("float32 inside: torch.zeros or .float() loses half of the digits of float64 images.")
def float32_on_the_way(X, weight, bias=None, **options):
    bias = None if bias is None else bias.float()
    return conv2d(X.float(), weight.float(), bias, **options).to(X.dtype)


@exercise.wrong("F.conv2d is what this exercise rebuilds.", caught_by="forbidden")
def the_library(X, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    checked(X, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)
    return F.conv2d(X, weight, bias, stride, padding, dilation, groups)


@exercise.speed(6.0, size=8, cuda=64)
def speed(draw, size):
    return Case("many images of 16x32x32", draw.normal(size, 16, 32, 32), draw.normal(32, 16, 3, 3) / 12)


@exercise.right("one matmul per kernel cell, added up")
def by_kernel_cells(X, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    oh, ow = checked(X, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)
    (sh, sw), (ph, pw), (dh, dw) = map(_pair, (stride, padding, dilation))
    (Co, Cg, kh, kw), N = weight.shape, X.size(0)
    X = F.pad(X, (pw, pw, ph, ph)).unflatten(1, (groups, Cg))
    filters = weight.reshape(groups, Co // groups, Cg, kh, kw)
    Y = 0.0
    for a in range(kh):
        for b in range(kw):
            rows = slice(a * dh, a * dh + (oh - 1) * sh + 1, sh)
            columns = slice(b * dw, b * dw + (ow - 1) * sw + 1, sw)
            Y = Y + torch.einsum("ngchw,goc->ngohw", X[..., rows, columns], filters[..., a, b])
    Y = Y.reshape(N, Co, oh, ow)
    return Y if bias is None else Y + bias.view(-1, 1, 1)


@exercise.right("one einsum over a view of all windows")
def one_einsum(X, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    checked(X, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)
    (sh, sw), (ph, pw), (dh, dw) = map(_pair, (stride, padding, dilation))
    Co, Cg, kh, kw = weight.shape
    X = F.pad(X, (pw, pw, ph, ph)).unflatten(1, (groups, Cg))
    windows = X.unfold(3, dh * (kh - 1) + 1, sh).unfold(4, dw * (kw - 1) + 1, sw)[..., ::dh, ::dw]
    Y = torch.einsum("ngchwab,gocab->ngohw", windows, weight.unflatten(0, (groups, Co // groups))).flatten(1, 2)
    return Y if bias is None else Y + bias[:, None, None]


@exercise.right("groups as zeros in a dense filter bank")
def dense_filters(X, weight, bias=None, *, groups=1, **options):
    oh, ow = checked(X, weight, bias, groups=groups, **options)
    Co, Cg, kh, kw = weight.shape
    mask = torch.eye(groups, dtype=X.dtype).repeat_interleave(Co // groups, 0)
    dense = torch.einsum("og,ok->ogk", mask, weight.flatten(1)).flatten(1)
    Y = (dense @ im2col(X, (kh, kw), **options)).unflatten(-1, (oh, ow))
    return Y if bias is None else Y + bias.unsqueeze(-1).unsqueeze(-1)
