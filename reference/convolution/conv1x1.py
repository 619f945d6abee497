"""The 1 x 1 convolution."""

import torch
import torch.nn.functional as F
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.convolution import FORBID


def conv1x1(X: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve with a 1 x 1 kernel: one linear layer, applied to the channel vector of every pixel.

    Args:
        X: images, float, shape (N, C, H, W); any memory layout, also channels-last. N may be 0.
        weight: filters, shape (Co, C, 1, 1).
        bias: one number per output channel, shape (Co,), or None.

    Returns:
        Tensor of shape (N, Co, H, W), of X's dtype: Y[n, :, i, j] = W X[n, :, i, j] + bias with the matrix
        W = weight[:, :, 0, 0]. Differentiable in X, weight and bias.
        One matrix product does it, without im2col or conv2d: at most 6 torch operations, none of which makes a
        tensor larger than both X and the result.

    Raises:
        ValueError: X or weight is not 4-D; weight's last two axes are not 1 x 1; C is not weight.size(1); or bias is
            not of shape (Co,).

    Example:
        >>> X = torch.tensor([[[[1.0, 2.0]], [[10.0, 20.0]]]])  # one image of two channels, 1 x 2 pixels
        >>> conv1x1(X, torch.tensor([[1.0, 1.0], [0.0, -1.0], [2.0, 0.0]])[:, :, None, None])
        tensor([[[[ 11.,  22.]],
        <BLANKLINE>
                 [[-10., -20.]],
        <BLANKLINE>
                 [[  2.,   4.]]]])
    """
    if X.ndim != 4 or weight.ndim != 4 or weight.shape[2:] != (1, 1):
        raise ValueError(f"X must be 4-D and weight (Co, C, 1, 1), got {tuple(X.shape)} and {tuple(weight.shape)}")
    if X.size(1) != weight.size(1):
        raise ValueError(f"X has {X.size(1)} channels, weight {weight.size(1)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must have shape ({weight.size(0)},), got {tuple(bias.shape)}")
    Y = torch.einsum("oc,nchw->nohw", weight[:, :, 0, 0], X)
    return Y if bias is None else Y + bias.view(-1, 1, 1)


exercise = Exercise(
    conv1x1,
    points=5,
    gradients=("X", "weight", "bias"),
    cost=Cost(ops=6, matmuls=1, maxel=("X", "result")),
    forbid=FORBID,
    hints=(
        "Drop the two axes of size 1: what is left of weight is the matrix of a linear layer from C to Co numbers.",
        "The channel axis must take part in the product and the pixels must not: move it, or name the axes in einsum.",
        'torch.einsum("oc,nchw->nohw", weight[:, :, 0, 0], X), then add bias as (Co, 1, 1).',
    ),
    source="D2L convolutional-neural-networks/channels; convolutional-modern/nin",
)


@exercise.truth
def truth(X, weight, bias=None):
    return F.conv2d(X, weight, bias)


@exercise.cases
def cases(draw):
    yield Case("2 images, 3 to 4 channels", draw.normal(2, 3, 4, 5), draw.normal(4, 3, 1, 1), draw.normal(4), cost=True)
    yield Case("more channels in than out", draw.normal(3, 5, 2, 4), draw.normal(2, 5, 1, 1), draw.normal(2), cost=True)
    yield Case("without bias", draw.normal(3, 2, 5, 4), draw.normal(6, 2, 1, 1), cost=True)
    yield Case("as many channels in as out", draw.normal(2, 3, 5, 4), draw.normal(3, 3, 1, 1), draw.normal(3))
    yield Case("as many output channels as columns", draw.normal(2, 3, 4, 5), draw.normal(5, 3, 1, 1), draw.normal(5))
    yield Case("one input channel", draw.normal(2, 1, 3, 5), draw.normal(4, 1, 1, 1), draw.normal(4), edge=True)
    yield Case("one output channel", draw.normal(3, 4, 2, 5), draw.normal(1, 4, 1, 1), draw.normal(1), edge=True)
    yield Case("one channel in and out", draw.normal(2, 1, 3, 4), draw.normal(1, 1, 1, 1), edge=True)
    yield Case("images of one pixel", draw.normal(3, 4, 1, 1), draw.normal(2, 4, 1, 1), draw.normal(2), edge=True)
    yield Case("no images", draw.normal(0, 3, 4, 5), draw.normal(2, 3, 1, 1), draw.normal(2), edge=True)
    yield Case("channels-last", draw.normal(2, 3, 5, 4).to(memory_format=torch.channels_last),
               draw.normal(4, 3, 1, 1), draw.normal(4))  # fmt: skip
    yield Case("float64", draw.normal(2, 3, 2, 5, dtype=torch.float64), draw.normal(4, 3, 1, 1, dtype=torch.float64),
               draw.normal(4, dtype=torch.float64))  # fmt: skip
    yield Case("tiny values", 1e-3 * draw.normal(2, 4, 3, 5), draw.normal(3, 4, 1, 1), 1e-3 * draw.normal(3),
               hidden=True)  # fmt: skip
    yield Case("a large offset", draw.normal(3, 4, 5, 2) + 1e4, draw.normal(5, 4, 1, 1), draw.normal(5), hidden=True)
    yield Case("channels-last, no bias", draw.normal(3, 5, 2, 6).to(memory_format=torch.channels_last),
               draw.normal(2, 5, 1, 1), hidden=True)  # fmt: skip
    yield Case("no images, no bias", draw.normal(0, 2, 5, 3), draw.normal(4, 2, 1, 1), edge=True, hidden=True)
    X, weight = draw.normal(2, 3, 4, 5), draw.normal(4, 3, 1, 1)
    yield Case("a 3x3 kernel", X, draw.normal(4, 3, 3, 3), raises=ValueError)
    yield Case("a 1x2 kernel", X, draw.normal(4, 3, 1, 2), raises=ValueError)
    yield Case("a 2x1 kernel", X, draw.normal(4, 3, 2, 1), raises=ValueError, hidden=True)
    yield Case("weight as a matrix", X, draw.normal(4, 3), raises=ValueError)
    yield Case("3-D images", draw.normal(2, 3, 5), weight, raises=ValueError)
    yield Case("5-D images", draw.normal(2, 3, 4, 5, 1), weight, raises=ValueError, hidden=True)
    yield Case("an empty kernel", X, torch.zeros(4, 3, 1, 0), raises=ValueError, hidden=True)
    yield Case("channels do not match", X, draw.normal(4, 2, 1, 1), raises=ValueError)
    yield Case("one-channel weight", X, draw.normal(4, 1, 1, 1), raises=ValueError)
    yield Case("one-channel images", draw.normal(2, 1, 4, 5), weight, raises=ValueError, hidden=True)
    yield Case("bias of the wrong length", X, weight, draw.normal(5), raises=ValueError)
    yield Case("bias of one number", X, weight, draw.normal(1), raises=ValueError)
    yield Case("bias as (Co, 1, 1)", X, weight, draw.normal(4, 1, 1), raises=ValueError, hidden=True)


@exercise.growth("images", sizes=(4, 8), ops=0, matmuls=0)
def more_images(draw, size):
    return Case(f"{size} images", draw.normal(size, 3, 4, 5), draw.normal(2, 3, 1, 1), draw.normal(2))


@exercise.growth("rows", sizes=(4, 8), ops=0)
def more_rows(draw, size):
    return Case(f"{size} rows", draw.normal(2, 3, size, 5), draw.normal(2, 3, 1, 1), draw.normal(2))


@exercise.growth("columns", sizes=(4, 8), ops=0)
def more_columns(draw, size):
    return Case(f"{size} columns", draw.normal(2, 3, 5, size), draw.normal(2, 3, 1, 1), draw.normal(2))


@exercise.growth("input channels", sizes=(4, 8), ops=0)
def more_inputs(draw, size):
    return Case(f"{size} channels", draw.normal(2, size, 4, 5), draw.normal(2, size, 1, 1), draw.normal(2))


@exercise.growth("output channels", sizes=(4, 8), ops=0)
def more_outputs(draw, size):
    return Case(f"{size} filters", draw.normal(2, 3, 4, 5), draw.normal(size, 3, 1, 1), draw.normal(size))


def checked(X, weight, bias=None):
    """Raise what the contract names; return weight as a matrix."""
    if X.ndim != 4 or weight.ndim != 4 or weight.shape[2:] != (1, 1) or X.size(1) != weight.size(1):
        raise ValueError
    if bias is not None and bias.shape != (weight.size(0),):
        raise ValueError
    return weight[:, :, 0, 0]


@exercise.wrong("The batch axis stands in front: X.reshape(C, -1) is for one image and mixes several of them.")
def batch_mixed_into_channels(X, weight, bias=None):
    matrix = checked(X, weight, bias)
    N, C, H, W = X.shape
    Y = (matrix @ X.reshape(C, N * H * W)).reshape(N, weight.size(0), H, W)
    return Y if bias is None else Y + bias.view(-1, 1, 1)


@exercise.wrong("A reshape relabels the memory, it does not move the channels to the end: use permute or movedim.")
def reshape_for_permute(X, weight, bias=None):
    matrix = checked(X, weight, bias)
    N, C, H, W = X.shape
    return F.linear(X.reshape(N, H, W, C), matrix, bias).permute(0, 3, 1, 2)


@exercise.wrong("The result must be brought back with permute, too: reshape leaves the channels in the last place.")
def reshape_back(X, weight, bias=None):
    Y = conv1x1(X, weight, bias)
    return Y.permute(0, 2, 3, 1).reshape(Y.shape)


@exercise.wrong("Rows of weight are output channels: the product sums over its column index, not over its row index.")
def weight_transposed(X, weight, bias=None):
    matrix = checked(X, weight, bias)
    square = matrix.T.reshape(matrix.shape)
    return conv1x1(X, square[:, :, None, None], bias)


@exercise.wrong("A window of one pixel does something: it mixes the channels. Each output is a sum over all of them.")
def channels_not_mixed(X, weight, bias=None):
    matrix = checked(X, weight, bias)
    mine = torch.arange(weight.size(0)) % X.size(1)
    Y = X[:, mine] * matrix[torch.arange(weight.size(0)), mine].view(-1, 1, 1)
    return Y if bias is None else Y + bias.view(-1, 1, 1)


@exercise.wrong("The layer is purely linear: an activation is a layer of its own.")
def with_relu(X, weight, bias=None):
    return conv1x1(X, weight, bias).relu()


@exercise.wrong("No softmax over the channels: the layer is purely linear.")
def with_softmax(X, weight, bias=None):
    return conv1x1(X, weight, bias).softmax(1)


@exercise.wrong("The bias is missing.")
def bias_ignored(X, weight, bias=None):
    checked(X, weight, bias)
    return conv1x1(X, weight)


@exercise.wrong("The bias belongs to the channels, (Co, 1, 1): as it is it lines up with the columns.")
def bias_along_the_columns(X, weight, bias=None):
    checked(X, weight, bias)
    Y = conv1x1(X, weight)
    return Y if bias is None else Y + bias


@exercise.wrong("Bias is added once per output channel, not once for each input channel.")
def bias_per_input_channel(X, weight, bias=None):
    checked(X, weight, bias)
    return conv1x1(X, weight, None if bias is None else bias * X.size(1))


@exercise.wrong(
    "squeeze() drops every axis of size 1, also Co = 1 or C = 1: take weight[:, :, 0, 0].", caught_by="runs"
)
def squeezed_weight(X, weight, bias=None):
    checked(X, weight, bias)
    Y = torch.einsum("oc,nchw->nohw", weight.squeeze(), X)
    return Y if bias is None else Y + bias.view(-1, 1, 1)


@exercise.wrong("Rows stay rows: the result is (N, Co, H, W).")
def rows_and_columns_swapped(X, weight, bias=None):
    return conv1x1(X, weight, bias).transpose(2, 3).contiguous()


@exercise.wrong("A loop over the images is one matmul each: fold the batch into the pixels.", caught_by="growth")
def loop_over_images(X, weight, bias=None):
    matrix = checked(X, weight, bias)
    if X.size(0) == 0:
        return conv1x1(X, weight, bias)
    Y = torch.stack([(matrix @ x.flatten(1)).view(-1, *x.shape[1:]) for x in X])
    return Y if bias is None else Y + bias.view(-1, 1, 1)


@exercise.wrong("A loop over the pixels is thousands of calls: one product serves all of them.", caught_by="growth")
def loop_over_pixels(X, weight, bias=None):
    matrix = checked(X, weight, bias)
    H, W = X.shape[2:]
    rows = [torch.stack([F.linear(X[:, :, i, j], matrix, bias) for j in range(W)], -1) for i in range(H)]
    return torch.stack(rows, 2)


@exercise.wrong(
    "A loop over the output channels grows with them: all rows of weight fit into one product.", caught_by="growth"
)
def loop_over_filters(X, weight, bias=None):
    matrix = checked(X, weight, bias)
    Y = torch.stack([(X * row.view(-1, 1, 1)).sum(1) for row in matrix], 1)
    return Y if bias is None else Y + bias.view(-1, 1, 1)


@exercise.wrong(
    "Multiplying with broadcasting makes N * Co * C * H * W numbers: let a matmul do the sum.", caught_by="cost"
)
def broadcast_product(X, weight, bias=None):
    matrix = checked(X, weight, bias)
    Y = (X.unsqueeze(1) * matrix[:, :, None, None]).sum(2)
    return Y if bias is None else Y + bias.view(-1, 1, 1)


@exercise.wrong("-1 cannot be worked out when there are no images: give every size.", caught_by="runs")
def minus_one_in_the_shape(X, weight, bias=None):
    matrix = checked(X, weight, bias)
    Y = matrix @ X.reshape(X.size(0), X.size(1), -1)
    Y = Y.reshape(X.size(0), weight.size(0), *X.shape[2:])
    return Y if bias is None else Y + bias.view(-1, 1, 1)


@exercise.wrong(
    "weight[:, :, 0, 0] is the whole matrix only if the kernel is 1 x 1: refuse larger kernels.", caught_by="errors"
)
def larger_kernels_accepted(X, weight, bias=None):
    return conv1x1(X, weight[:, :, :1, :1] if weight.ndim == 4 else weight, bias)


@exercise.wrong("weight is (Co, C, 1, 1); a bare matrix is a ValueError.", caught_by="errors")
def matrices_accepted(X, weight, bias=None):
    return conv1x1(X, weight[:, :, None, None] if weight.ndim == 2 else weight, bias)


@exercise.wrong("A batch axis is required: a single 3-D image is a ValueError.", caught_by="errors")
def accepts_one_image(X, weight, bias=None):
    return conv1x1(X[..., None] if X.ndim == 3 else X, weight, bias)


@exercise.wrong("Images of another rank end in einsum's RuntimeError: check that X is 4-D.", caught_by="errors")
def rank_left_to_einsum(X, weight, bias=None):
    if weight.ndim != 4 or weight.shape[2:] != (1, 1) or X.size(1) != weight.size(1):
        raise ValueError
    if bias is not None and bias.shape != (weight.size(0),):
        raise ValueError
    Y = torch.einsum("oc,nchw->nohw", weight[:, :, 0, 0], X)
    return Y if bias is None else Y + bias.view(-1, 1, 1)


@exercise.wrong("A one-channel weight must not be broadcast over the channels: C must match.", caught_by="errors")
def channels_unchecked(X, weight, bias=None):
    if X.ndim == weight.ndim == 4 and weight.size(1) == 1:
        weight = weight.expand(-1, X.size(1), -1, -1)
    return conv1x1(X, weight, bias)


@exercise.wrong("A bias of one number would broadcast: check that its shape is (Co,).", caught_by="errors")
def bias_unchecked(X, weight, bias=None):
    Y = conv1x1(X, weight)
    if bias is None:
        return Y
    if bias.numel() not in (1, weight.size(0)):
        raise ValueError
    return Y + bias.flatten()[:, None, None]


@exercise.wrong("detach() or `.data` on weight: it would never learn.", caught_by="gradients")
def weight_detached(X, weight, bias=None):
    return conv1x1(X, weight.detach(), bias)


@exercise.wrong("detach() on the images: layers below this one would never learn.", caught_by="gradients")
def images_detached(X, weight, bias=None):
    return conv1x1(X.detach(), weight, bias)


@exercise.wrong("detach() or `.data` on the bias: it would never learn.", caught_by="gradients")
def bias_detached(X, weight, bias=None):
    return conv1x1(X, weight, None if bias is None else bias.detach())


@exercise.wrong("float32 inside: .float() loses half of the digits of float64 images.")
def float32_on_the_way(X, weight, bias=None):
    return conv1x1(X.float(), weight.float(), None if bias is None else bias.float()).to(X.dtype)


@exercise.wrong("F.conv2d is what this exercise rebuilds.", caught_by="forbidden")
def the_library(X, weight, bias=None):
    checked(X, weight, bias)
    return F.conv2d(X, weight, bias)


@exercise.right("a linear layer on channels-last data")
def channels_last_linear(X, weight, bias=None):
    return F.linear(X.movedim(1, -1), checked(X, weight, bias), bias).movedim(-1, 1)


@exercise.right("one flat product over all pixels of all images")
def flat_product(X, weight, bias=None):
    matrix = checked(X, weight, bias)
    N, C, H, W = X.shape
    Y = matrix @ X.transpose(0, 1).reshape(C, N * H * W)
    Y = Y if bias is None else Y + bias[:, None]
    return Y.reshape(weight.size(0), N, H, W).transpose(0, 1)


@exercise.right("a batched matmul with the matrix in front")
def batched_product(X, weight, bias=None):
    Y = torch.matmul(checked(X, weight, bias), X.flatten(2)).unflatten(2, X.shape[2:])
    return Y if bias is None else Y + bias.unsqueeze(-1).unsqueeze(-1)
