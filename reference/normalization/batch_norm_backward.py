"""The backward pass of batch normalisation, by hand."""

from types import SimpleNamespace

import torch
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.normalization import FORBID


def batch_norm_backward(
    grad_out: Tensor, X: Tensor, gamma: Tensor, *, eps: float = 1e-5
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of batch normalisation in training mode, given the gradient of its output.

    The forward pass is Y = gamma * X_hat + beta with X_hat = (X - mean) / sqrt(var + eps), where mean and biased
    variance of each channel are taken over all other axes; they depend on X, too. No autograd: plain arithmetic.

    Args:
        grad_out: the gradient of the loss with respect to Y, shaped like `X`.
        X: the input of the forward pass, `(N, C)` or `(N, C, H, W)`, floating point.
        gamma: `(C,)`, the scale of each channel; any sign, may be 0.
        eps: positive, added to the variance inside the root.

    Returns:
        (grad_X, grad_gamma, grad_beta): the gradients with respect to X, shaped like it, to gamma `(C,)` and to
        beta `(C,)`. In every channel grad_X sums to 0, and so does grad_X * X_hat up to the effect of eps.

    Raises:
        ValueError: `X` is neither 2-D nor 4-D, `grad_out` is not shaped like `X`, `gamma` is not of shape `(C,)`,
            or there are fewer than 2 values per channel.

    Example:
        >>> grad_out, X = torch.tensor([[1.0], [0.0], [0.0]]), torch.tensor([[1.0], [0.0], [-1.0]])
        >>> grad_X, grad_gamma, grad_beta = batch_norm_backward(grad_out, X, torch.tensor([2.0]), eps=1e-8)
        >>> grad_X
        tensor([[ 0.4082],
                [-0.8165],
                [ 0.4082]])
        >>> grad_gamma, grad_beta
        (tensor([1.2247]), tensor([1.]))
    """
    if X.ndim not in (2, 4):
        raise ValueError(f"X must be (N, C) or (N, C, H, W), got shape {tuple(X.shape)}")
    N, C, *image = X.shape
    if grad_out.shape != X.shape or gamma.shape != (C,):
        raise ValueError(f"grad_out must have X's shape and gamma ({C},)")
    n = N * image[0] * image[1] if image else N
    if n < 2:
        raise ValueError(f"batch norm needs at least 2 values per channel, got {n}")
    axes = (0, 2, 3)[: X.ndim - 1]
    centred = X - X.mean(axes, keepdim=True)
    deviation = (centred.square().mean(axes, keepdim=True) + eps).sqrt()
    X_hat = centred / deviation
    grad_beta = grad_out.sum(axes, keepdim=True)
    grad_gamma = (grad_out * X_hat).sum(axes, keepdim=True)
    grad_X = gamma.reshape(grad_beta.shape) / deviation * (grad_out - (grad_beta + X_hat * grad_gamma) / n)
    return grad_X, grad_gamma.reshape(C), grad_beta.reshape(C)


exercise = Exercise(
    batch_norm_backward,
    points=12,
    cost=Cost(ops=30),
    forbid=(*FORBID, "autograd", "backward", "func", "vjp", "jvp", "enable_grad"),
    hints=(
        "Along how many paths does one x reach the loss? Directly, through the mean, and through the variance.",
        "Y = gamma * X_hat + beta gives grad_beta = sum g and grad_gamma = sum g * X_hat, over all axes but axis 1. "
        "The mean's path takes the mean of g away, the variance's path X_hat times the mean of g * X_hat.",
        "grad_X = gamma / sqrt(var + eps) * (g - mean(g) - X_hat * mean(g * X_hat)); means over n values.",
    ),
    source="D2L convolutional-modern/batch-norm, multilayer-perceptrons/backprop",
)


@exercise.truth
def truth(grad_out, X, gamma, *, eps=1e-5):
    with torch.enable_grad():
        X, gamma = X.detach().requires_grad_(), gamma.detach().requires_grad_()
        beta = torch.zeros_like(gamma).requires_grad_()
        Y = torch.nn.functional.batch_norm(X, None, None, gamma, beta, training=True, eps=eps)
        return torch.autograd.grad(Y, (X, gamma, beta), grad_out)


def sums_per_channel(batch_norm_backward, grad_out, X, gamma):
    grad_X, _, _ = batch_norm_backward(grad_out, X, gamma)
    axes = [axis for axis in range(X.ndim) if axis != 1]
    X_hat = X - X.mean(axes, keepdim=True)
    X_hat = X_hat / X_hat.square().mean(axes, keepdim=True).sqrt()
    size = grad_X.abs().sum(axes)
    return {
        "grad_X sums to 0": bool((grad_X.sum(axes).abs() <= 1e-4 * size).all()),
        "grad_X * X_hat sums to 0": bool(((grad_X * X_hat).sum(axes).abs() <= 1e-3 * size).all()),
    }


@exercise.cases
def cases(draw):
    def three(*shape, scale=1.0, offset=0.0):
        return draw.normal(*shape), scale * draw.normal(*shape) + offset, 1 + 0.5 * draw.normal(shape[1])

    yield Case("features", *three(6, 4))
    yield Case("images", *three(4, 3, 5, 2))
    yield Case("three numbers", torch.tensor([[1.0], [0.0], [0.0]]), torch.tensor([[1.0], [0.0], [-1.0]]),
               torch.tensor([2.0]))  # fmt: skip
    yield Case("another eps", *three(5, 3), eps=0.3)
    yield Case("another eps on images", *three(2, 3, 4, 3), eps=0.05)
    yield Case("as wide as it has channels", *three(2, 5, 3, 5))
    grad_out, X, _ = three(5, 4, 2, 3)
    yield Case("gamma of 0 and below", grad_out, X, torch.tensor([0.0, -1.5, 2.0, -0.1]))
    grad_out, X, gamma = three(4, 3, 2, 5)
    X[:, 1] = 2.0
    yield Case("a constant channel", grad_out, X, gamma, edge=True)
    grad_out, X, gamma = three(7, 3)
    yield Case("the same gradient for all rows", grad_out[:1].expand(7, 3), X, gamma, edge=True)
    grad_out, X, gamma = three(4, 3, 5, 2)
    yield Case("one gradient per channel, expanded", grad_out[:1, :, :1, :1].expand(4, 3, 5, 2), X, gamma, edge=True)
    yield Case("two rows", *three(2, 5), eps=0.1, edge=True)
    yield Case("two rows in float64", *(t.double() for t in three(2, 4)), edge=True)
    yield Case("one image", *three(1, 4, 2, 3), edge=True)
    yield Case("mean 3000", *three(4, 3, 5, 6, offset=3000.0))
    yield Case("tiny values", *three(5, 4, 2, 3, scale=1e-3))
    grad_out, X, gamma = three(3, 4, 5, 2)
    yield Case("tiny gradients", 1e-6 * grad_out, X, gamma)
    grad_out, X, gamma = (t.to(memory_format=torch.channels_last) if t.ndim == 4 else t for t in three(3, 4, 5, 2))
    yield Case("channels-last images", grad_out, X, gamma, edge=True)
    yield Case("sums over each channel", *three(6, 3), probe=sums_per_channel)
    yield Case("sums over each channel of images", *three(3, 2, 4, 5), probe=sums_per_channel)
    yield Case("large images", *three(8, 3, 16, 12), cost=True)
    yield Case("more features", *three(9, 7, scale=30.0, offset=-5.0), hidden=True)
    yield Case("more images", *three(3, 5, 2, 7), eps=1e-3, hidden=True)
    grad_out, X, _ = three(8, 3)
    yield Case("gamma of 0 and below, features", grad_out, X, torch.tensor([-2.0, 0.0, -0.5]), hidden=True)
    yield Case("means far apart", *three(6, 3, offset=torch.tensor([0.0, 3000, -4e3])), hidden=True)
    yield Case("grad_out of another shape", draw.normal(4, 2), *three(4, 3)[1:], raises=ValueError)
    yield Case("one row of gradients for four", draw.normal(1, 3), *three(4, 3)[1:], raises=ValueError)
    yield Case("gamma for another channel number", *three(4, 3)[:2], draw.normal(4), raises=ValueError)
    yield Case("gamma of size 1", *three(4, 3, 2, 5)[:2], draw.normal(1), raises=ValueError)
    yield Case("a sequence, 3-D", *three(4, 3, 5), raises=ValueError)
    yield Case("a vector, 1-D", draw.normal(3), draw.normal(3), draw.normal(3), raises=ValueError, hidden=True)
    yield Case("one row", *three(1, 3), raises=ValueError)
    yield Case("one image of one pixel", *three(1, 3, 1, 1), raises=ValueError, hidden=True)
    yield Case("no images", *three(0, 3, 2, 2), raises=ValueError, hidden=True)


@exercise.growth("channels", ops=0.0, peak=1.0)
def more_channels(draw, size):
    return Case(f"{size} channels", draw.normal(3, size, 2, 4), draw.normal(3, size, 2, 4), draw.normal(size))


@exercise.growth("rows", ops=0.0, peak=1.0)
def more_rows(draw, size):
    return Case(f"{size} rows", draw.normal(size, 5), draw.normal(size, 5), draw.normal(5))


def _check(grad_out, X, gamma):
    if X.ndim not in (2, 4) or grad_out.shape != X.shape or gamma.shape != X.shape[1:2]:
        raise ValueError


def _count(X):
    if X.numel() < 2 * X.shape[1]:
        raise ValueError
    return X.numel() // X.shape[1]


def _moments(X):
    axes = [a for a in range(X.ndim) if a != 1]
    centred = X - X.mean(axes, keepdim=True)
    return centred, centred.square().mean(axes, keepdim=True)


def _root(var, eps):
    return (var + eps).sqrt()


def _inner(t):
    return t.g - (t.sum_g + t.X_hat * t.sum_gx) / t.n


def _steps(
    grad_out, X, gamma, *, eps=1e-5, check=_check, count=_count, moments=_moments, root=_root, inner=_inner,
    scale=lambda gamma: gamma,
):  # fmt: skip
    """The backward pass with exchangeable steps."""
    check(grad_out, X, gamma)
    n = count(X)
    axes = [a for a in range(X.ndim) if a != 1]
    centred, var = moments(X)
    deviation = root(var, eps)
    X_hat = centred / deviation
    sum_g, sum_gx = grad_out.sum(axes, keepdim=True), (grad_out * X_hat).sum(axes, keepdim=True)
    grad_X = (
        scale(gamma).reshape(deviation.shape)
        / deviation
        * inner(SimpleNamespace(g=grad_out, X_hat=X_hat, sum_g=sum_g, sum_gx=sum_gx, n=n))
    )
    return grad_X, sum_gx.flatten(), sum_g.flatten()


@exercise.wrong("Mean and variance move with x, too: two correction terms are missing from grad_X.")
def statistics_taken_as_constants(*args, **kwargs):
    return _steps(*args, **kwargs, inner=lambda t: t.g)


@exercise.wrong("The variance moves with x, too: it adds -X_hat * mean(g * X_hat).")
def only_the_term_of_the_mean(*args, **kwargs):
    return _steps(*args, **kwargs, inner=lambda t: t.g - t.sum_g / t.n)


@exercise.wrong("The mean moves with x, too: it takes mean(g) away.")
def only_the_term_of_the_variance(*args, **kwargs):
    return _steps(*args, **kwargs, inner=lambda t: t.g - t.X_hat * t.sum_gx / t.n)


@exercise.wrong("Both corrections are taken away: g - mean(g) - X_hat * mean(g * X_hat).")
def correction_with_the_wrong_sign(*args, **kwargs):
    return _steps(*args, **kwargs, inner=lambda t: t.g - (t.sum_g - t.X_hat * t.sum_gx) / t.n)


@exercise.wrong("The corrections are means over the channel: divide the sums by n.")
def sums_for_means(*args, **kwargs):
    return _steps(*args, **kwargs, inner=lambda t: t.g - t.sum_g - t.X_hat * t.sum_gx)


@exercise.wrong("A term is wrong by X_hat: the variance's correction is X_hat * mean(g * X_hat), not its mean alone.")
def correction_without_x_hat(*args, **kwargs):
    return _steps(*args, **kwargs, inner=lambda t: t.g - (t.sum_g + t.sum_gx) / t.n)


@exercise.wrong(
    "The variance that normalises divides by n, not by n - 1; the unbiased one is only for the running value."
)
def unbiased_variance(*args, **kwargs):
    def moments(X):
        centred, var = _moments(X)
        return centred, var * _count(X) / (_count(X) - 1)

    return _steps(*args, **kwargs, moments=moments)


@exercise.wrong("The corrections divide by n, too: n - 1 belongs to the running variance only.")
def corrections_over_n_minus_1(*args, **kwargs):
    return _steps(*args, **kwargs, inner=lambda t: t.g - t.sum_g / t.n - t.X_hat * t.sum_gx / (t.n - 1))


@exercise.wrong("beta reaches every position, so its gradient is the sum over all positions, not the mean.")
def mean_for_grad_beta(*args, **kwargs):
    grad_X, grad_gamma, grad_beta = _steps(*args, **kwargs)
    return grad_X, grad_gamma, grad_beta / _count(args[1])


@exercise.wrong(
    "gamma and beta reach every position: their gradients are sums. Only the corrections of grad_X are means."
)
def means_for_both_parameters(*args, **kwargs):
    grad_X, grad_gamma, grad_beta = _steps(*args, **kwargs)
    return grad_X, grad_gamma / _count(args[1]), grad_beta / _count(args[1])


@exercise.wrong("Sum over the examples, do not average: the loss already says how examples are weighted.")
def averages_over_the_batch(*args, **kwargs):
    grad_X, grad_gamma, grad_beta = _steps(*args, **kwargs)
    return grad_X, grad_gamma / len(args[1]), grad_beta / len(args[1])


@exercise.wrong("gamma scales the normalised value: its gradient is sum(g * X_hat), not sum(g * X).")
def grad_gamma_with_x(grad_out, X, gamma, **kwargs):
    grad_X, grad_gamma, grad_beta = _steps(grad_out, X, gamma, **kwargs)
    return grad_X, (grad_out * X).sum([a for a in range(X.ndim) if a != 1]), grad_beta


@exercise.wrong("gamma scales the normalised values: grad_gamma is sum(g * X_hat), so divide by the deviation, too.")
def grad_gamma_with_centred_x(grad_out, X, gamma, **kwargs):
    grad_X, _, grad_beta = _steps(grad_out, X, gamma, **kwargs)
    axes = [a for a in range(X.ndim) if a != 1]
    return grad_X, (grad_out * (X - X.mean(axes, keepdim=True))).sum(axes), grad_beta


@exercise.wrong("gamma's gradient does not contain gamma itself: use grad_out, not gamma * grad_out.")
def grad_gamma_times_gamma(*args, **kwargs):
    grad_X, grad_gamma, grad_beta = _steps(*args, **kwargs)
    return grad_X, grad_gamma * args[2], grad_beta


@exercise.wrong("The order is grad_X, grad_gamma, grad_beta.")
def swapped_results(*args, **kwargs):
    grad_X, grad_gamma, grad_beta = _steps(*args, **kwargs)
    return grad_X, grad_beta, grad_gamma


@exercise.wrong("n counts all values of a channel, N * H * W, not the images.")
def divides_by_the_batch_size(*args, **kwargs):
    X = args[1]
    return _steps(*args, **kwargs, inner=lambda t: t.g - (t.sum_g + t.X_hat * t.sum_gx) / len(X))


@exercise.wrong("Y = gamma * X_hat + beta: gamma multiplies grad_X.")
def no_gamma(*args, **kwargs):
    return _steps(*args, **kwargs, scale=torch.ones_like)


@exercise.wrong("gamma keeps its sign: a negative scale turns the gradient round.")
def absolute_gamma(*args, **kwargs):
    return _steps(*args, **kwargs, scale=torch.abs)


@exercise.wrong("The factor in front divides by the standard deviation once; the other root is already in X_hat.")
def divides_by_the_variance(*args, **kwargs):
    X = args[1] if args[1].ndim > 1 else None
    grad_X, grad_gamma, grad_beta = _steps(*args, **kwargs)
    return grad_X / _root(_moments(X)[1], kwargs.get("eps", 1e-5)), grad_gamma, grad_beta


@exercise.wrong("eps belongs inside the root: sqrt(var + eps).")
def eps_outside_the_root(*args, **kwargs):
    return _steps(*args, **kwargs, root=lambda var, eps: var.sqrt() + eps)


@exercise.wrong("eps is an argument: 1e-5 is only its default.")
def fixed_eps(*args, eps=1e-5):
    return _steps(*args)


@exercise.wrong(
    "Where a channel is constant the variance is 0, and only eps keeps the division finite: do not leave it out."
)
def no_eps(*args, eps=1e-5):
    return _steps(*args, eps=0.0)


@exercise.wrong("E[x^2] - E[x]^2 subtracts two large numbers when the mean is large: average (x - mean)^2 instead.")
def one_pass_variance(*args, **kwargs):
    def moments(X):
        axes = [a for a in range(X.ndim) if a != 1]
        mean = X.mean(axes, keepdim=True)
        return X - mean, X.square().mean(axes, keepdim=True) - mean.square()

    return _steps(*args, **kwargs, moments=moments)


@exercise.wrong("A channel is one feature: its statistics and sums run over N, H and W, not over N alone.")
def pools_over_the_batch_only(grad_out, X, gamma, *, eps=1e-5):
    if X.ndim != 4 or len(X) < 2:
        return _steps(grad_out, X, gamma, eps=eps)
    _check(grad_out, X, gamma)
    flat = _steps(grad_out.flatten(1), X.flatten(1), gamma.repeat_interleave(X[0, 0].numel()), eps=eps)
    return flat[0].reshape(X.shape), *(t.reshape(len(gamma), -1).sum(1) for t in flat[1:])


@exercise.wrong(
    "gamma and beta are vectors of shape (C,), and so are their gradients: drop the kept axes.", caught_by="shape"
)
def kept_axes(*args, **kwargs):
    grad_X, *rest = _steps(*args, **kwargs)
    return grad_X, *(t.reshape([1, -1, 1, 1][: grad_X.ndim]) for t in rest)


@exercise.wrong("A (C,) vector broadcasts against the last axis, the width: reshape it to (1, C, 1, 1).")
def gamma_along_the_last_axis(grad_out, X, gamma, **kwargs):
    return _steps(grad_out, X, gamma, **kwargs, scale=torch.ones_like)[0] * gamma, *_steps(
        grad_out, X, gamma, **kwargs
    )[1:]


@exercise.wrong("`grad_out -= ...` changes the caller's tensor: make a new one.", caught_by="inputs")
def works_in_place(grad_out, *args, **kwargs):
    out = _steps(grad_out, *args, **kwargs)
    if 0 not in grad_out.stride():
        grad_out.copy_(out[0])
    return out


@exercise.wrong("Compute in the dtype that X has: .float() throws away half of a float64.")
def computes_in_float32(grad_out, X, gamma, **kwargs):
    return tuple(t.to(X.dtype) for t in _steps(grad_out.float(), X.float(), gamma.float(), **kwargs))


@exercise.wrong("Compare the shapes yourself: a gradient with one row broadcasts silently.", caught_by="errors")
def shapes_not_checked(*args, **kwargs):
    def check(grad_out, X, gamma):
        if X.ndim not in (2, 4) or (grad_out + X).shape != X.shape or gamma.numel() not in (1, X.shape[1]):
            raise ValueError

    grad_out, X, gamma = args
    if grad_out.shape != X.shape and grad_out.shape[0] != 1:
        raise ValueError
    return _steps(*args, **kwargs, check=check)


@exercise.wrong("One value has no variance: fewer than 2 values per channel must raise ValueError.", caught_by="errors")
def accepts_one_value(*args, **kwargs):
    return _steps(*args, **kwargs, count=lambda X: max(X.numel() // X.shape[1], 1))


@exercise.wrong("One image has H * W values per channel: count n = N * H * W.", caught_by="runs")
def refuses_one_image(grad_out, X, gamma, **kwargs):
    if len(X) < 2:
        raise ValueError
    return _steps(grad_out, X, gamma, **kwargs)


@exercise.wrong(
    "The Jacobian of n outputs by n inputs per channel is never needed: its product with g needs only two means."
,
                caught_by="growth")  # fmt: skip
def full_jacobian(grad_out, X, gamma, *, eps=1e-5):
    _check(grad_out, X, gamma)
    n = _count(X)
    G, Y = (t.transpose(0, 1).reshape(len(gamma), n) for t in (grad_out, X))
    centred = Y - Y.mean(1, keepdim=True)
    deviation = (centred.square().mean(1, keepdim=True) + eps).sqrt()
    X_hat = centred / deviation
    jacobian = torch.eye(n, dtype=X.dtype) - 1 / n - X_hat[:, :, None] * X_hat[:, None] / n
    grad = gamma[:, None] / deviation * (jacobian @ G[:, :, None])[..., 0]
    return grad.reshape(X.transpose(0, 1).shape).transpose(0, 1).contiguous(), (G * X_hat).sum(1), G.sum(1)


@exercise.wrong(
    "One reduction over several axes serves all channels at once: no loop over channels.", caught_by="growth"
)
def loops_over_channels(grad_out, X, gamma, *, eps=1e-5):
    _check(grad_out, X, gamma)
    _count(X)
    found = [_steps(*(t[:, c : c + 1] for t in (grad_out, X)), gamma[c : c + 1], eps=eps) for c in range(len(gamma))]
    return tuple(torch.cat(parts, 0 if i else 1) for i, parts in enumerate(zip(*found, strict=True)))


@exercise.wrong("autograd is what this exercise replaces: write the three paths down by hand.", caught_by="forbidden")
def asks_autograd(grad_out, X, gamma, *, eps=1e-5):
    _check(grad_out, X, gamma)
    _count(X)
    X, gamma = X.detach().requires_grad_(), gamma.detach().requires_grad_()
    beta = torch.zeros_like(gamma, requires_grad=True)
    centred, var = _moments(X)
    s = var.shape
    Y = gamma.reshape(s) * centred / (var + eps).sqrt() + beta.reshape(s)
    return torch.autograd.grad(Y, (X, gamma, beta), grad_out)


@exercise.right("node by node along the graph")
def node_by_node(grad_out, X, gamma, *, eps=1e-5):
    _check(grad_out, X, gamma)
    n = _count(X)
    axes, s = [0, 2, 3][: X.ndim - 1], [1, -1, 1, 1][: X.ndim]
    centred = X - X.mean(axes).reshape(s)
    inverse = (centred.square().mean(axes) + eps).rsqrt()
    grad_hat = grad_out * gamma.reshape(s)
    grad_var = -0.5 * inverse**3 * (grad_hat * centred).sum(axes)
    grad_centred = grad_hat * inverse.reshape(s) + 2 / n * centred * grad_var.reshape(s)
    grad_X = grad_centred - grad_centred.mean(axes).reshape(s)
    return grad_X, (grad_out * centred).sum(axes) * inverse, grad_out.sum(axes)


@exercise.right("channels first, by projections")
def projections(grad_out, X, gamma, *, eps=1e-5):
    _check(grad_out, X, gamma)
    n = _count(X)
    G, Y = (t.transpose(0, 1).reshape(len(gamma), n) for t in (grad_out, X))
    var, mean = torch.var_mean(Y, 1, unbiased=False, keepdim=True)
    inverse = 1 / (var + eps).sqrt()
    X_hat = (Y - mean) * inverse
    inner = torch.einsum("ck,ck->c", G, X_hat)[:, None]
    grad = (G - G.mean(1, keepdim=True)).addcmul(X_hat, inner, value=-1 / n) * (gamma[:, None] * inverse)
    return grad.reshape(X.transpose(0, 1).shape).transpose(0, 1), inner[:, 0], G.sum(1)
