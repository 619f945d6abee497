"""The gradients of a convolution, by hand."""

import torch
import torch.nn.functional as F
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.convolution import CONVOLUTIONS
from reference.convolution.conv_geometry import conv_geometry
from reference.convolution.im2col import im2col

Pair = int | tuple[int, int]


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def conv2d_backward(
    grad_out: Tensor, X: Tensor, weight: Tensor, *, stride: Pair = 1, padding: Pair = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Carry a gradient back through Y = conv2d(X, weight, bias, stride=stride, padding=padding), without autograd.

    Args:
        grad_out: gradient of a loss with respect to Y, shape (N, Co, oh, ow); any memory layout, also expanded.
        X: images that went in, float, shape (N, C, H, W). N may be 0.
        weight: filters, shape (Co, C, kh, kw). groups and dilation are 1.
        stride: pixels from one window to the next. Pair = int | tuple[int, int]: (vertical, horizontal), and an int
            stands for both.
        padding: zeros added on every side: (above and below, left and right).

    Returns:
        (grad_X, grad_weight, grad_bias) of shapes (N, C, H, W), (Co, C, kh, kw) and (Co,), of X's dtype: each is a
        sum over all outputs that the number reached, in all images of the batch. Pixels that no window covers have
        gradient 0. The results carry no graph, whether or not an input requires a gradient.
        At most 10 * kh * kw + 20 torch operations, however large N, C, Co, H and W are. F.fold may be used.

    Raises:
        ValueError: X or weight is not 4-D; their channels differ; a kernel size or stride is below 1; a padding is
            negative; no window fits along an axis; or grad_out does not have Y's shape.

    Example:
        >>> X = torch.arange(9.0).reshape(1, 1, 3, 3)
        >>> grad_X, grad_weight, grad_bias = conv2d_backward(torch.ones(1, 1, 2, 2), X, torch.ones(1, 1, 2, 2))
        >>> grad_X[0, 0]  # how many windows cover each pixel
        tensor([[1., 2., 1.],
                [2., 4., 2.],
                [1., 2., 1.]])
        >>> grad_weight[0, 0]
        tensor([[ 8., 12.],
                [20., 24.]])
        >>> grad_bias
        tensor([4.])
    """
    if X.ndim != 4 or weight.ndim != 4 or X.size(1) != weight.size(1):
        raise ValueError(f"X {tuple(X.shape)} and weight {tuple(weight.shape)} do not fit together")
    (N, C, H, W), (Co, _, kh, kw) = X.shape, weight.shape
    (sh, sw), (ph, pw) = _pair(stride), _pair(padding)
    oh = conv_geometry([(kh, sh, ph, 1)], H)[0]
    ow = conv_geometry([(kw, sw, pw, 1)], W)[0]
    if grad_out.shape != (N, Co, oh, ow):
        raise ValueError(f"grad_out must have shape {(N, Co, oh, ow)}, got {tuple(grad_out.shape)}")
    G, K = grad_out.detach().reshape(N, Co, oh * ow), weight.detach().reshape(Co, C * kh * kw)
    columns = im2col(X.detach(), (kh, kw), stride=stride, padding=padding)  # forward: Y = K @ columns + bias
    grad_weight = torch.einsum("nol,nkl->ok", G, columns).view(weight.shape)
    grad_columns = (K.T @ G).view(N, C, kh, kw, oh, ow)
    padded = X.new_zeros(N, C, H + 2 * ph, W + 2 * pw)
    for a in range(kh):
        for b in range(kw):  # the pixels that cell (a, b) of the kernel met, one per window; cells overlap
            padded[:, :, a : a + sh * (oh - 1) + 1 : sh, b : b + sw * (ow - 1) + 1 : sw] += grad_columns[:, :, a, b]
    return padded[:, :, ph : ph + H, pw : pw + W], grad_weight, G.sum((0, 2))


exercise = Exercise(
    conv2d_backward,
    points=12,
    cost=Cost(ops=10 * 9 + 20),
    forbid=(*CONVOLUTIONS, "autograd", "grad", "func"),
    uses=("conv_geometry", "im2col"),
    hints=(
        "Y[n, o, i, j] is a sum of products X * weight. Which pixels did the cell weight[o, c, a, b] meet, and in "
        "which outputs?",
        "As matrices Y = K @ columns with columns = im2col(X): that has a simple backward pass. Then undo im2col: "
        "every number goes back to its pixel, and a pixel collects from several windows.",
        "grad_K = sum over n of G @ columns.mT, grad_columns = K.T @ G. For each kernel cell (a, b) add its oh x "
        "ow numbers to the strided slice [a : a + sh * (oh - 1) + 1 : sh, ...] of a padded zero image; crop that "
        "at last.",
    ),
    source="D2L convolutional-neural-networks/conv-layer; multilayer-perceptrons/backprop; "
    "computer-vision/transposed-conv",
)


@exercise.truth
def truth(grad_out, X, weight, *, stride=1, padding=0):
    X, weight = X.detach().requires_grad_(), weight.detach().requires_grad_()
    bias = weight.new_zeros(weight.size(0)).requires_grad_()
    with torch.enable_grad():
        Y = F.conv2d(X, weight, bias, stride, padding)
    return torch.autograd.grad(Y, (X, weight, bias), grad_out.detach())


def pairing(f, G, X, weight, *, stride=1, padding=0):
    """Report <X, grad_X> and <weight, grad_weight>: both equal <conv2d(X, weight), G>."""
    grad_X, grad_weight, grad_bias = f(G, X, weight, stride=stride, padding=padding)
    return {"<X, grad_X>": (X * grad_X).sum(), "<weight, grad_weight>": (weight * grad_weight).sum()}


@exercise.cases
def cases(draw):
    def made(N, C, size, Co, kernel, *, s=(1, 1), p=(0, 0)):
        """Draw grad_out, X and weight that fit together."""
        out = [(n + 2 * q - k) // t + 1 for n, q, k, t in zip(size, p, kernel, s, strict=True)]
        return draw.normal(N, Co, *out), draw.normal(N, C, *size), draw.normal(Co, C, *kernel)

    yield Case("stride 1", *made(2, 3, (5, 6), 4, (2, 3)), cost=Cost(ops=10 * 6 + 20))
    yield Case("a 3x3 kernel, padding 1", *made(3, 2, (5, 6), 4, (3, 3), p=(1, 1)), padding=1, cost=Cost(ops=110))
    yield Case("stride 2", *made(2, 3, (7, 9), 2, (3, 3), s=(2, 2)), stride=2)
    yield Case("stride 3, rows and columns left over", *made(2, 2, (8, 9), 3, (2, 3), s=(3, 3)), stride=3)
    yield Case("stride larger than the kernel", *made(2, 3, (7, 9), 2, (2, 1), s=(3, 2)), stride=(3, 2))
    yield Case("stride and padding unequal", *made(2, 3, (8, 7), 4, (3, 2), s=(2, 3), p=(2, 1)), stride=(2, 3),
               padding=(2, 1))  # fmt: skip
    yield Case("padding 2, stride 2", *made(3, 2, (5, 6), 4, (3, 4), s=(2, 2), p=(2, 2)), stride=2, padding=2)
    yield Case("padding larger than the kernel", *made(2, 2, (3, 4), 3, (1, 2), p=(2, 3)), padding=(2, 3), edge=True)
    yield Case("a 1x1 kernel", *made(2, 3, (4, 5), 2, (1, 1)), edge=True)
    yield Case("a 1x1 kernel, stride 2", *made(2, 3, (6, 5), 4, (1, 1), s=(2, 2)), stride=2, edge=True)
    yield Case("a kernel as large as the image", *made(3, 2, (4, 3), 5, (4, 3)), edge=True)
    yield Case("one image", *made(1, 3, (5, 4), 2, (2, 3)), edge=True)
    yield Case("one channel in and out", *made(2, 1, (5, 6), 1, (3, 2)), edge=True)
    yield Case("as many channels in as out", *made(2, 3, (4, 6), 3, (2, 3)))
    G, X, weight = made(0, 2, (5, 6), 3, (3, 2))
    yield Case("no images", G, X, weight, edge=True)
    G, X, weight = made(2, 3, (6, 5), 4, (3, 2), p=(1, 0))
    yield Case("grad_out of ones, expanded", torch.ones(()).expand(G.shape), X, weight, padding=(1, 0), layouts=False)
    yield Case("channels-last grad_out and images", G.to(memory_format=torch.channels_last),
               X.to(memory_format=torch.channels_last), weight, padding=(1, 0))  # fmt: skip
    yield Case("inputs that require a gradient", G, X.clone().requires_grad_(), weight.clone().requires_grad_(),
               padding=(1, 0), edge=True)  # fmt: skip
    yield Case("a grad_out that requires a gradient", G.clone().requires_grad_(), X, weight, padding=(1, 0), edge=True)
    yield Case("float64", *(t.double() for t in made(2, 2, (4, 5), 3, (2, 3))), stride=1)
    yield Case("pairing with the images", *made(2, 3, (7, 8), 4, (3, 2), s=(2, 1), p=(1, 2)), stride=(2, 1),
               padding=(1, 2), probe=pairing)  # fmt: skip
    G, X, weight = made(3, 2, (6, 7), 4, (2, 3), p=(0, 1))
    yield Case("tiny gradients", 1e-3 * G, X, weight, padding=(0, 1), hidden=True)
    yield Case("images with a large offset", G, X + 1e3, weight, padding=(0, 1), hidden=True)
    yield Case("stride (3, 2), left over", *made(2, 2, (9, 8), 3, (2, 3), s=(3, 2)), stride=(3, 2), hidden=True)
    yield Case("padding (0, 3), stride (1, 2)", *made(2, 3, (4, 5), 2, (3, 2), s=(1, 2), p=(0, 3)), stride=(1, 2),
               padding=(0, 3), hidden=True)  # fmt: skip
    yield Case("a transposed grad_out", G.transpose(2, 3).contiguous().transpose(2, 3), X, weight, padding=(0, 1),
               hidden=True)  # fmt: skip
    G, X, weight = made(2, 3, (5, 6), 4, (2, 3))
    yield Case("grad_out one row short", G[:, :, :3].clone(), X, weight, raises=ValueError)
    yield Case("grad_out one column too wide", draw.normal(2, 4, 4, 5), X, weight, raises=ValueError)
    yield Case("grad_out as large as the images", draw.normal(2, 4, 5, 6), X, weight, raises=ValueError, hidden=True)
    yield Case("grad_out of one row", G[:, :, :1].clone(), X, weight, raises=ValueError)
    yield Case("grad_out of the unpadded size", G, X, weight, padding=1, raises=ValueError)
    yield Case("grad_out of one image", G[:1].clone(), X, weight, raises=ValueError)
    yield Case("grad_out of another number of channels", G[:, :3].clone(), X, weight, raises=ValueError)
    yield Case("a scalar grad_out", torch.ones(()), X, weight, raises=ValueError, hidden=True)
    yield Case("one-channel images", G, X[:, :1].clone(), weight, raises=ValueError)
    yield Case("one-channel weight", G, X, weight[:, :1].clone(), raises=ValueError)
    yield Case("3-D images", G[0].clone(), X[0].clone(), weight, raises=ValueError)
    yield Case("a kernel too wide", G, X, draw.normal(4, 3, 2, 7), raises=ValueError)
    yield Case("stride 0", G, X, weight, stride=(1, 0), raises=ValueError)
    yield Case("negative padding", G[:, :, :2].clone(), X, weight, padding=(-1, 0), raises=ValueError)
    yield Case("negative stride", G, X, weight, stride=-1, raises=ValueError, hidden=True)


def sized(draw, *, N=2, C=2, Co=3, H=5, W=6):
    return Case("sizes", draw.normal(N, Co, H - 1, W - 2), draw.normal(N, C, H, W), draw.normal(Co, C, 2, 3))


@exercise.growth("images", sizes=(4, 8), ops=0)
def more_images(draw, size):
    return sized(draw, N=size)


@exercise.growth("input channels", sizes=(4, 8), ops=0)
def more_inputs(draw, size):
    return sized(draw, C=size)


@exercise.growth("output channels", sizes=(4, 8), ops=0)
def more_outputs(draw, size):
    return sized(draw, Co=size)


@exercise.growth("rows", sizes=(8, 16), ops=0)
def more_rows(draw, size):
    return sized(draw, H=size)


@exercise.growth("columns", sizes=(8, 16), ops=0)
def more_columns(draw, size):
    return sized(draw, W=size)


def checked(grad_out, X, weight, *, stride=1, padding=0):
    """Raise what the contract names; return the output's size and the options as pairs."""
    if X.ndim != 4 or weight.ndim != 4 or X.size(1) != weight.size(1):
        raise ValueError
    s, p = _pair(stride), _pair(padding)
    out = [conv_geometry([(k, *sp, 1)], n)[0] for k, *sp, n in zip(weight.shape[2:], s, p, X.shape[2:], strict=True)]
    if grad_out.shape != (X.size(0), weight.size(0), *out):
        raise ValueError
    return out, s, p


def scattered(grad_out, X, weight, s, p, *, assign=False):
    """Scatter grad_out into the padded images' gradient, cell by cell."""
    N, C, H, W = X.shape
    oh, ow = grad_out.shape[2:]
    found = X.new_zeros(N, C, H + 2 * p[0], W + 2 * p[1])
    for a in range(weight.size(2)):
        for b in range(weight.size(3)):
            at = (..., slice(a, a + s[0] * (oh - 1) + 1, s[0]), slice(b, b + s[1] * (ow - 1) + 1, s[1]))
            part = torch.einsum("nohw,oc->nchw", grad_out, weight[:, :, a, b])
            found[at] = part if assign else found[at] + part
    return found


def cropped(padded, X, p):
    return padded[:, :, p[0] : p[0] + X.size(2), p[1] : p[1] + X.size(3)]


@exercise.wrong("A pixel sits in many windows: their contributions add up, so += and not =.")
def assigned_for_added(grad_out, X, weight, *, stride=1, padding=0):
    good = conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)
    s, p = _pair(stride), _pair(padding)
    found = scattered(grad_out.detach(), X.detach(), weight.detach(), s, p, assign=True)
    return cropped(found, X, p), *good[1:]


def full_correlation(grad_out, X, weight, s, p, *, flip=True, spread=True):
    """Correlate the spread and padded grad_out with the flipped kernel: the 'full correlation' route."""
    N, C, H, W = X.shape
    Co, _, kh, kw = weight.shape
    oh, ow = grad_out.shape[2:]
    if not spread:
        s = (1, 1)
    wide = grad_out.new_zeros(N, Co, s[0] * (oh - 1) + 1, s[1] * (ow - 1) + 1)
    wide[:, :, :: s[0], :: s[1]] = grad_out
    bottom = max(H + 2 * p[0] - (kh - 1) - wide.size(2), 0)
    right = max(W + 2 * p[1] - (kw - 1) - wide.size(3), 0)
    wide = F.pad(wide, (kw - 1, kw - 1 + right, kh - 1, kh - 1 + bottom))
    windows = wide.unfold(2, kh, 1).unfold(3, kw, 1)
    kernel = weight.flip(2, 3) if flip else weight
    return cropped(torch.einsum("nohwab,ocab->nchw", windows, kernel), X, p)


@exercise.wrong("The backward pass runs the kernel the other way round: flip it in the full correlation.")
def kernel_not_flipped(grad_out, X, weight, *, stride=1, padding=0):
    good = conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)
    s, p = _pair(stride), _pair(padding)
    return full_correlation(grad_out.detach(), X.detach(), weight.detach(), s, p, flip=False), *good[1:]


@exercise.wrong("Windows stood `stride` pixels apart: spread grad_out with stride - 1 zeros before correlating.")
def stride_forgotten(grad_out, X, weight, *, stride=1, padding=0):
    good = conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)
    s, p = _pair(stride), _pair(padding)
    return full_correlation(grad_out.detach(), X.detach(), weight.detach(), s, p, spread=False), *good[1:]


@exercise.wrong("Zeros outside the image are no inputs: crop the gradient back to X's size.", caught_by="shape")
def padding_returned(grad_out, X, weight, *, stride=1, padding=0):
    good = conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)
    return scattered(grad_out.detach(), X.detach(), weight.detach(), _pair(stride), _pair(padding)), *good[1:]


@exercise.wrong("The padding stands in front, too: crop ph rows and pw columns from the start, not only from the end.")
def cropped_at_the_end_only(grad_out, X, weight, *, stride=1, padding=0):
    good = conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)
    s, p = _pair(stride), _pair(padding)
    return cropped(scattered(grad_out.detach(), X.detach(), weight.detach(), s, p), X, (0, 0)), *good[1:]


@exercise.wrong("[ph:-ph] is empty when ph is 0: crop to [ph : ph + H].", caught_by="shape")
def cropped_with_minus_zero(grad_out, X, weight, *, stride=1, padding=0):
    good = conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)
    (ph, pw), s = _pair(padding), _pair(stride)
    found = scattered(grad_out.detach(), X.detach(), weight.detach(), s, (ph, pw))
    return found[:, :, ph:-ph, pw:-pw], *good[1:]


@exercise.wrong("Sum over the batch: if the loss is a mean, grad_out already holds the 1 / N.")
def mean_over_images(grad_out, X, weight, *, stride=1, padding=0):
    grad_X, grad_weight, grad_bias = conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)
    return grad_X, grad_weight / max(X.size(0), 1), grad_bias


@exercise.wrong("One bias reaches every position of its channel: sum over rows and columns, too.", caught_by="shape")
def bias_summed_over_images_only(grad_out, X, weight, *, stride=1, padding=0):
    grad_X, grad_weight, _ = conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)
    return grad_X, grad_weight, grad_out.detach().sum(0)


@exercise.wrong("One bias serves every image: sum over the batch, too.", caught_by="shape")
def bias_summed_over_positions_only(grad_out, X, weight, *, stride=1, padding=0):
    grad_X, grad_weight, _ = conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)
    return grad_X, grad_weight, grad_out.detach().sum((2, 3))


@exercise.wrong("The gradient of the bias is a sum, not a mean.")
def bias_averaged(grad_out, X, weight, *, stride=1, padding=0):
    grad_X, grad_weight, _ = conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)
    return (
        grad_X,
        grad_weight,
        grad_out.detach().mean((0, 2, 3)) if grad_out.numel() else weight.new_zeros(weight.size(0)),
    )


@exercise.wrong(
    "Pixels that no window reaches exist all the same: their gradient is 0, and grad_X is shaped like X.",
    caught_by="shape",
)
def left_over_rows_missing(grad_out, X, weight, *, stride=1, padding=0):
    grad_X, *rest = conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)
    s, p = _pair(stride), _pair(padding)
    used = [(n - 1) * t + k for n, t, k in zip(grad_out.shape[2:], s, weight.shape[2:], strict=True)]
    keep = [max(min(u - q, n), 1) for u, q, n in zip(used, p, X.shape[2:], strict=True)]
    return grad_X[:, :, : keep[0], : keep[1]].clone(), *rest


@exercise.wrong("grad_weight needs images padded on both sides, as the forward pass has them.")
def weight_from_unpadded_images(grad_out, X, weight, *, stride=1, padding=0):
    grad_X, grad_weight, grad_bias = conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)
    (sh, sw), (ph, pw) = _pair(stride), _pair(padding)
    shifted = F.pad(X.detach(), (0, 2 * pw, 0, 2 * ph))
    again = conv2d_backward(grad_out, shifted, weight, stride=(sh, sw))[1]
    return grad_X, again, grad_bias


@exercise.wrong("The windows of grad_weight lie `stride` pixels apart, as in the forward pass.")
def stride_forgotten_in_the_weight(grad_out, X, weight, *, stride=1, padding=0):
    grad_X, _, grad_bias = conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)
    (ph, pw), (kh, kw), (oh, ow) = _pair(padding), weight.shape[2:], grad_out.shape[2:]
    padded = F.pad(X.detach(), (pw, pw, ph, ph))[:, :, : oh + kh - 1, : ow + kw - 1]
    return grad_X, conv2d_backward(grad_out, padded, weight)[1], grad_bias


@exercise.wrong("grad_weight is a correlation of the images with grad_out: nothing is flipped here.")
def weight_flipped(grad_out, X, weight, *, stride=1, padding=0):
    grad_X, grad_weight, grad_bias = conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)
    return grad_X, grad_weight.flip(2, 3), grad_bias


@exercise.wrong("grad_weight has weight's shape: output channels first.")
def weight_channels_swapped(grad_out, X, weight, *, stride=1, padding=0):
    grad_X, grad_weight, grad_bias = conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)
    return grad_X, grad_weight.transpose(0, 1).contiguous(), grad_bias


@exercise.wrong("Going back, a channel of X hears from every output channel: sum over all filters.")
def one_filter_only(grad_out, X, weight, *, stride=1, padding=0):
    good = conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)
    first = conv2d_backward(grad_out[:, :1], X, weight[:1], stride=stride, padding=padding)
    return first[0], *good[1:]


@exercise.wrong("Return grad_X, grad_weight, grad_bias in this order.", caught_by="shape")
def weight_first(grad_out, X, weight, *, stride=1, padding=0):
    grad_X, grad_weight, grad_bias = conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)
    return grad_weight, grad_X, grad_bias


@exercise.wrong(
    "The gradient of the bias belongs to the result, though bias itself is not an argument.", caught_by="structure"
)
def bias_left_out(grad_out, X, weight, *, stride=1, padding=0):
    return conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)[:2]


@exercise.wrong("Pairs are (vertical, horizontal): the stride of the rows comes first.")
def stride_axes_swapped(grad_out, X, weight, *, stride=1, padding=0):
    good = conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)
    p = _pair(padding)
    s = _pair(stride)[::-1]
    room = [max(t * (n - 1) + k, m + 2 * q) - m - 2 * q for t, n, k, m, q in
            zip(s, grad_out.shape[2:], weight.shape[2:], X.shape[2:], p, strict=True)]  # fmt: skip
    larger = F.pad(X.detach(), (0, room[1], 0, room[0]))
    return cropped(scattered(grad_out.detach(), larger, weight.detach(), s, p), X, p), *good[1:]


@exercise.wrong(
    "The results must carry no graph, also when an input requires a gradient: detach, or use no_grad().",
    caught_by="gradients",
)
def graph_kept(grad_out, X, weight, *, stride=1, padding=0):
    good = conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)
    s, p = _pair(stride), _pair(padding)
    return cropped(scattered(grad_out, X, weight, s, p), X, p), *good[1:]


@exercise.wrong(
    "A loop over the images grows with the batch: einsum sums over all of them at once.", caught_by="growth"
)
def loop_over_images(grad_out, X, weight, *, stride=1, padding=0):
    checked(grad_out, X, weight, stride=stride, padding=padding)
    if X.size(0) == 0:
        return conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)
    each = [
        conv2d_backward(g[None], x[None], weight, stride=stride, padding=padding)
        for g, x in zip(grad_out, X, strict=True)
    ]
    grad_X, grad_weight, grad_bias = zip(*each, strict=True)
    return torch.cat(grad_X), torch.stack(grad_weight).sum(0), torch.stack(grad_bias).sum(0)


@exercise.wrong(
    "A loop over output positions is thousands of calls: loop over the few kernel cells.", caught_by="growth"
)
def loop_over_positions(grad_out, X, weight, *, stride=1, padding=0):
    (oh, ow), (sh, sw), p = checked(grad_out, X, weight, stride=stride, padding=padding)
    G, K, (kh, kw) = grad_out.detach(), weight.detach(), weight.shape[2:]
    padded = F.pad(X.detach(), (p[1], p[1], p[0], p[0]))
    grad_padded, grad_weight = torch.zeros_like(padded), torch.zeros_like(K)
    for i in range(oh):
        for j in range(ow):
            at = (..., slice(i * sh, i * sh + kh), slice(j * sw, j * sw + kw))
            grad_weight += torch.einsum("no,ncab->ocab", G[..., i, j], padded[at])
            grad_padded[at] += torch.einsum("no,ocab->ncab", G[..., i, j], K)
    return cropped(grad_padded, X, p), grad_weight, G.sum((0, 2, 3))


@exercise.wrong("torch.zeros makes float32 whatever X is: use new_zeros.", caught_by="dtype")
def zeros_without_dtype(grad_out, X, weight, *, stride=1, padding=0):
    grad_X, grad_weight, grad_bias = conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)
    collected = torch.zeros(X.shape)
    collected += grad_X
    return collected, grad_weight, grad_bias


@exercise.wrong("grad_out must have Y's shape: one that broadcasts is a mistake of the caller.", caught_by="errors")
def grad_out_broadcast(grad_out, X, weight, *, stride=1, padding=0):
    if X.ndim == weight.ndim == 4 and X.size(1) == weight.size(1):
        layers = zip(weight.shape[2:], _pair(stride), _pair(padding), X.shape[2:], strict=True)
        out = [conv_geometry([(k, s, p, 1)], n)[0] for k, s, p, n in layers]
        try:
            grad_out = grad_out.expand(X.size(0), weight.size(0), *out)
        except RuntimeError:
            raise ValueError from None
    return conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)


@exercise.wrong(
    "A grad_out that is too small is refused, not treated as if fewer windows had been there.", caught_by="errors"
)
def smaller_grad_out_accepted(grad_out, X, weight, *, stride=1, padding=0):
    if grad_out.ndim == X.ndim == weight.ndim == 4 and grad_out.shape[:2] == (X.size(0), weight.size(0)):
        s, p = _pair(stride), _pair(padding)
        used = [(n - 1) * t + k - 2 * q for n, t, k, q in zip(grad_out.shape[2:], s, weight.shape[2:], p, strict=True)]
        if min(s) > 0 and min(p) >= 0 and used[0] <= X.size(2) and used[1] <= X.size(3):
            checked(weight.new_zeros(X.size(0), weight.size(0), *(
                (n + 2 * q - k) // t + 1 for n, q, k, t in zip(X.shape[2:], p, weight.shape[2:], s, strict=True)
            )), X, weight, stride=s, padding=p)  # fmt: skip
            G, x, w = grad_out.detach(), X.detach(), weight.detach()
            size = [(n - 1) * t + k for n, t, k in zip(G.shape[2:], s, w.shape[2:], strict=True)]
            padded = F.pad(x, (p[1], p[1], p[0], p[0]))
            grad_weight = conv2d_backward(G, padded[:, :, : size[0], : size[1]], w, stride=s)[1]
            return cropped(scattered(G, x, w, s, p), x, p), grad_weight, G.sum((0, 2, 3))
    return conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)


@exercise.wrong("A grad_out that is too large is refused, not cut to size.", caught_by="errors")
def larger_grad_out_cut(grad_out, X, weight, *, stride=1, padding=0):
    if grad_out.ndim == X.ndim == weight.ndim == 4 and min(_pair(stride)) > 0 and min(_pair(padding)) >= 0:
        layers = zip(weight.shape[2:], _pair(stride), _pair(padding), X.shape[2:], strict=True)
        out = [conv_geometry([(k, s, p, 1)], n)[0] for k, s, p, n in layers]
        grad_out = grad_out[:, :, : out[0], : out[1]]
    return conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)


@exercise.wrong(
    "A one-channel weight does not fit images of more channels: check before broadcasting.", caught_by="errors"
)
def channels_unchecked(grad_out, X, weight, *, stride=1, padding=0):
    if X.ndim == weight.ndim == 4 and weight.size(1) == 1:
        weight = weight.expand(-1, X.size(1), -1, -1)
    return conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)


@exercise.wrong("A negative padding is a mistake of the caller, not a way to crop: ValueError.", caught_by="errors")
def negative_padding_crops(grad_out, X, weight, *, stride=1, padding=0):
    ph, pw = _pair(padding)
    if X.ndim == 4 and min(ph, pw) < 0:
        inner = F.pad(X, (pw, pw, ph, ph))
        grad_X, *rest = conv2d_backward(grad_out, inner, weight, stride=stride)
        return F.pad(grad_X, (-pw, -pw, -ph, -ph)), *rest
    return conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)


@exercise.wrong("grad_out belongs to the caller: do not scale or fill it in place.", caught_by="inputs")
def clears_grad_out(grad_out, X, weight, *, stride=1, padding=0):
    found = conv2d_backward(grad_out, X, weight, stride=stride, padding=padding)
    if grad_out.is_contiguous():
        grad_out.zero_()
    return found


@exercise.wrong("Autograd is what this exercise does by hand.", caught_by="forbidden")
def by_autograd(grad_out, X, weight, *, stride=1, padding=0):
    checked(grad_out, X, weight, stride=stride, padding=padding)
    return truth(grad_out, X, weight, stride=stride, padding=padding)


@exercise.right("matrix products with the windows, and F.fold to bring them back")
def by_fold(grad_out, X, weight, *, stride=1, padding=0):
    (oh, ow), (sh, sw), (ph, pw) = checked(grad_out, X, weight, stride=stride, padding=padding)
    Co, C, kh, kw = weight.shape
    N, L = X.size(0), oh * ow
    G, K = grad_out.detach().reshape(N, Co, L), weight.detach().reshape(Co, C * kh * kw)
    padded = F.pad(X.detach(), (pw, pw, ph, ph))
    windows = padded.unfold(2, kh, sh).unfold(3, kw, sw).permute(0, 1, 4, 5, 2, 3).reshape(N, C * kh * kw, L)
    grad_X = F.fold(K.T @ G, X.shape[2:], (kh, kw), stride=(sh, sw), padding=(ph, pw))
    grad_weight = torch.einsum("nol,nkl->ok", G, windows).reshape(weight.shape)
    return grad_X.detach(), grad_weight, G.sum((0, 2))


@exercise.right("two products per kernel cell")
def by_kernel_cells(grad_out, X, weight, *, stride=1, padding=0):
    _, s, p = checked(grad_out, X, weight, stride=stride, padding=padding)
    with torch.no_grad():
        padded, grad_weight = F.pad(X, (p[1], p[1], p[0], p[0])), weight.new_zeros(weight.shape)
        for a in range(weight.size(2)):
            for b in range(weight.size(3)):
                slices = padded[:, :, a :: s[0], b :: s[1]][:, :, : grad_out.size(2), : grad_out.size(3)]
                grad_weight[:, :, a, b] = torch.einsum("nohw,nchw->oc", grad_out, slices)
        return cropped(scattered(grad_out, X, weight, s, p), X, p), grad_weight, grad_out.sum((0, 2, 3))


@exercise.right("a full correlation with the flipped kernel")
def by_full_correlation(grad_out, X, weight, *, stride=1, padding=0):
    (oh, ow), s, p = checked(grad_out, X, weight, stride=stride, padding=padding)
    with torch.no_grad():
        padded = F.pad(X, (p[1], p[1], p[0], p[0]))
        windows = padded.unfold(2, weight.size(2), s[0]).unfold(3, weight.size(3), s[1])
        grad_weight = torch.einsum("nohw,nchwab->ocab", grad_out, windows)
        return full_correlation(grad_out, X, weight, s, p), grad_weight, grad_out.sum(dim=(0, 2, 3))
