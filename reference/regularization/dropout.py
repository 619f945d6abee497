"""Dropout."""

import torch
from torch import Tensor

from grader import Case, Cost, Exercise


def dropout(x: Tensor, p: float, training: bool = True, *, generator: torch.Generator | None = None) -> Tensor:
    """Drop each entry of `x` with probability `p` and scale up the others, so that the mean stays.

    Training with 0 < p < 1 makes exactly one draw, `u = torch.rand(x.shape, generator=generator)` (float32, on
    the CPU, whatever the dtype of `x`; then moved to the device of `x`). Entries with `u >= p` (compared in torch)
    are kept and multiplied by 1 / (1 - p), the others become exactly 0, even where `x` is inf or nan.

    Args:
        x: floating point, any shape, float16 too.
        p: probability of being dropped, in [0, 1].
        training: if False nothing is dropped and nothing is scaled.
        generator: where the draw comes from; None is torch's global generator.

    Returns:
        New tensor of the shape and dtype of `x` (never `x` itself). With p = 0, or when not training: the values
        of `x`, and nothing is drawn. Training with p = 1: zeros, and nothing is drawn; the result stays
        connected to `x`, with gradient 0.

    Raises:
        ValueError: `p` is not in [0, 1], training or not.
        TypeError: `x` is not floating point.

    Example:
        >>> x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        >>> dropout(x, 0.5, generator=torch.Generator().manual_seed(1))
        tensor([[ 2.,  0.,  0.],
                [ 8.,  0., 12.]])
        >>> dropout(x, 0.5, training=False)
        tensor([[1., 2., 3.],
                [4., 5., 6.]])
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p must be in [0, 1], got {p}")
    if not x.is_floating_point():
        raise TypeError(f"x must be a float tensor, got {x.dtype}")
    if p == 0 or not training:
        return x.clone()
    if p == 1:
        return x.masked_fill(torch.ones_like(x, dtype=torch.bool), 0)
    dropped = (torch.rand(x.shape, generator=generator) < p).to(x.device)
    return (x / (1 - p)).masked_fill(dropped, 0)


exercise = Exercise(
    dropout,
    points=8,
    gradients=("x",),
    forbid=(
        "dropout*",
        "*_dropout*",
        "bernoulli*",
        "Dropout*",
        "AlphaDropout",
        "FeatureAlphaDropout",
        "Bernoulli*",
        "distributions",
        "binomial*",
        "multinomial",
    ),
    hints=(
        "Every entry tosses its own coin. If a share p disappears, by what must the rest be multiplied to keep the "
        "mean, and when must nothing at all be drawn?",
        "0 * inf is nan: do not multiply by a mask of zeros, select with it (torch.where or masked_fill). "
        "Deal with p = 0 and p = 1 before dividing by 1 - p.",
        "dropped = torch.rand(x.shape, generator=generator) < p; the result is (x / (1 - p)).masked_fill(dropped, 0).",
    ),
    source="D2L multilayer-perceptrons/dropout",
)


@exercise.truth
def truth(x, p, training=True, *, generator=None):
    scale = torch.zeros_like(x) if training else torch.ones_like(x)
    if training and p < 1:
        u = torch.rand(x.shape, generator=generator) if p > 0 else torch.ones(x.shape)
        scale = (u >= p).to(x.dtype) / (1 - p)
    return torch.where(scale > 0, x, torch.zeros_like(x)) * scale


def backward_through_it(candidate, x, p, training=True):
    own = x.detach().clone().requires_grad_()
    y = candidate(own, p, training)
    connected = y.requires_grad
    if connected:
        y.sum().backward()
    return {"connected": connected, "gradient": own.grad if connected else torch.zeros_like(x)}


def drawn_value(draw, *shape):
    """Return a seed and a probability that equals one of the numbers drawn with it."""
    seed = draw.seed()
    u = torch.rand(shape, generator=torch.Generator().manual_seed(seed)).flatten().sort().values
    return seed, float(u[len(u) // 2])


@exercise.cases
def cases(draw):
    inf, nan = float("inf"), float("nan")
    saved = Cost(ops=8, saved={"x": 1.25})
    yield Case("p = 0.3", draw.normal(5, 8), 0.3, generator=draw.generator())
    yield Case("half of three axes", draw.normal(2, 3, 7), 0.5, generator=draw.generator())
    yield Case("a large batch", draw.normal(16, 24) + 3.0, 0.25, generator=draw.generator(), cost=saved)
    yield Case("most are dropped", draw.normal(4, 9), 0.85, True, generator=draw.generator())
    yield Case("the global generator", draw.normal(6, 5), 0.4, draws=True)
    yield Case("not training", draw.normal(3, 5), 0.4, False, generator=draw.generator())
    yield Case("not training, no generator", draw.normal(4, 2), 0.6, False)
    yield Case("p = 0", draw.normal(2, 6), 0.0, generator=draw.generator(), edge=True)
    yield Case("p = 1", draw.normal(3, 4), 1.0, generator=draw.generator(), edge=True)
    yield Case("p = 1, then backward", draw.normal(3, 4), 1.0, probe=backward_through_it, edge=True)
    yield Case("p = 1 and not training", draw.normal(4, 3), 1.0, False, edge=True)
    strange = draw.normal(4, 6)
    strange[0], strange[2, ::2] = inf, nan
    yield Case("inf and nan, dropped or kept", strange, 0.5, generator=draw.generator(), edge=True)
    yield Case("inf and p = 1", torch.tensor([[inf, -inf, 1.0]]), 1.0, edge=True)
    yield Case("inf, not training", torch.tensor([[inf, nan, 1.0], [2.0, -inf, 0.0]]), 0.5, False, edge=True)
    yield Case("a single number, not training", torch.tensor(-1.5), 0.3, False, edge=True)
    yield Case("a single number", torch.tensor(2.5), 0.5, generator=draw.generator(), edge=True)
    yield Case("no rows", draw.normal(0, 3), 0.5, generator=draw.generator(), edge=True)
    yield Case("a transposed view", draw.normal(7, 4).T, 0.4, generator=draw.generator(), edge=True)
    yield Case("float64", draw.normal(5, 6, dtype=torch.float64), 0.35, generator=draw.generator(), edge=True)
    yield Case("float16", draw.normal(7, 4, dtype=torch.float16), 0.2, generator=draw.generator(), edge=True)
    seed, p = drawn_value(draw, 3, 5)
    level = torch.Generator().manual_seed(seed)
    yield Case("a draw that equals p is kept", draw.normal(3, 5), p, generator=level, edge=True)
    yield Case("tiny values", 1e-3 * draw.normal(3, 11), 0.1, generator=draw.generator(), hidden=True)
    yield Case("large values", 1e4 + 1e4 * draw.normal(4, 7), 0.6, generator=draw.generator(), hidden=True)
    yield Case("four axes", draw.normal(2, 3, 4, 5), 0.45, generator=draw.generator(), hidden=True)
    yield Case("nothing but nan", torch.full((5, 4), nan), 0.4, generator=draw.generator(), edge=True, hidden=True)
    half = draw.normal(3, 5, dtype=torch.float16)
    yield Case("float16 at p = 1", half, 1.0, generator=draw.generator(), edge=True, hidden=True)
    yield Case("p = -0.1", draw.normal(2, 3), -0.1, raises=ValueError)
    yield Case("p = 1.5", draw.normal(2, 3), 1.5, generator=draw.generator(), raises=ValueError)
    yield Case("p = 1.5, not training", draw.normal(2, 3), 1.5, False, raises=ValueError)
    yield Case("integers", torch.arange(4), 0.5, generator=draw.generator(), raises=TypeError)
    yield Case("integers, not training", torch.arange(4), 0.5, False, raises=TypeError)
    yield Case("a mask", draw.boolean(2, 3), 0.0, raises=TypeError, hidden=True)


@exercise.growth("rows", ops=0.0, peak=1.0)
def more_rows(draw, size):
    return Case(f"{size} rows", draw.normal(size, 6), 0.5, generator=draw.generator())


def check_inputs(x, p):
    if not 0 <= p <= 1:
        raise ValueError
    if not x.is_floating_point():
        raise TypeError


def with_mask(x, p, training, generator, apply):
    """Run the frame of a correct answer; `apply(x, u)` does the middle case."""
    check_inputs(x, p)
    if not training or p in (0, 1):
        return dropout(x, p, training)
    return apply(x, torch.rand(x.shape, generator=generator))


@exercise.wrong("Scale the kept entries by 1 / (1 - p): without it the mean shrinks by 1 - p.")
def not_rescaled(x, p, training=True, *, generator=None):
    return with_mask(x, p, training, generator, lambda x, u: x.masked_fill(u < p, 0))


@exercise.wrong("The share that is kept is 1 - p, so the scale is 1 / (1 - p), not 1 / p.")
def scaled_by_p(x, p, training=True, *, generator=None):
    return with_mask(x, p, training, generator, lambda x, u: (x / p).masked_fill(u < p, 0))


@exercise.wrong("The mask is inverted: u < p is dropped, u >= p is kept.")
def mask_inverted(x, p, training=True, *, generator=None):
    return with_mask(x, p, training, generator, lambda x, u: (x / (1 - p)).masked_fill(u >= p, 0))


@exercise.wrong("training=False switches dropout off: the values of x come back unchanged.")
def training_ignored(x, p, training=True, *, generator=None):
    return dropout(x, p, generator=generator)


@exercise.wrong(
    "This is the older dropout, which scales at test time. Inverted dropout scales in training, by 1 / (1 - p), and "
    "leaves eval alone."
)
def scaled_at_test_time_instead(x, p, training=True, *, generator=None):
    return not_rescaled(x, p, training, generator=generator) if training else dropout(x, p, False) * (1 - p)


@exercise.wrong("Scaling happened in training already (inverted dropout): at test time x passes unchanged.")
def rescaled_at_test_time(x, p, training=True, *, generator=None):
    result = dropout(x, p, training, generator=generator)
    return result if training else result * (1 - p)


@exercise.wrong("With p = 1 the scale 1 / (1 - p) divides by 0, and 0 * inf is nan: return zeros before you divide.")
def divides_by_zero(x, p, training=True, *, generator=None):
    if p < 1 or not training:
        return dropout(x, p, training, generator=generator)
    check_inputs(x, p)
    return torch.zeros_like(x) * (x / x.new_tensor(1 - p))


@exercise.wrong("inf * 0 is nan: select the kept entries with torch.where or masked_fill, do not multiply by a mask.")
def multiplied_by_a_mask(x, p, training=True, *, generator=None):
    return with_mask(x, p, training, generator, lambda x, u: x * (u >= p).to(x.dtype) / (1 - p))


@exercise.wrong("Every element tosses its own coin: one coin for a whole row drops entries together.")
def one_coin_per_row(x, p, training=True, *, generator=None):
    def apply(x, u):
        return (x / (1 - p)).masked_fill(u[..., :1] < p if x.ndim else u < p, 0)

    return with_mask(x, p, training, generator, apply)


@exercise.wrong("Every element tosses its own coin: draw torch.rand(x.shape), not one number per row.")
def one_draw_per_row(x, p, training=True, *, generator=None):
    check_inputs(x, p)
    if not training or p in (0, 1) or x.ndim == 0:
        return dropout(x, p, training, generator=generator)
    u = torch.rand(*x.shape[:-1], 1, generator=generator)
    return (x / (1 - p)).masked_fill(u < p, 0)


@exercise.wrong("Every example of the batch draws its own mask: one mask for all drops the same features everywhere.")
def one_mask_for_the_batch(x, p, training=True, *, generator=None):
    def apply(x, u):
        return (x / (1 - p)).masked_fill(u[:1] < p if x.ndim > 1 else u < p, 0)

    return with_mask(x, p, training, generator, apply)


@exercise.wrong("p is the probability of being dropped; this takes it for that of being kept.")
def p_is_kept(x, p, training=True, *, generator=None):
    return dropout(x, 1 - p if training else p, training, generator=generator)


@exercise.wrong("The prescribed mask keeps u >= p. Keeping u < 1 - p is as random, but other entries fall.")
def other_end_of_the_interval(x, p, training=True, *, generator=None):
    return with_mask(x, p, training, generator, lambda x, u: (x / (1 - p)).masked_fill(u >= 1 - p, 0))


@exercise.wrong("u >= p is kept, u < p is dropped: a draw that equals p belongs to the kept ones.")
def strictly_above(x, p, training=True, *, generator=None):
    return with_mask(x, p, training, generator, lambda x, u: (x / (1 - p)).masked_fill(u <= p, 0))


@exercise.wrong(
    "Nothing is drawn where nothing is random: p = 0 and eval leave the generator alone.", caught_by="state"
)
def always_draws(x, p, training=True, *, generator=None):
    check_inputs(x, p)
    u = torch.rand(x.shape, generator=generator)
    if not training or p in (0, 1):
        return dropout(x, p, training)
    return (x / (1 - p)).masked_fill(u < p, 0)


@exercise.wrong("With p = 1 nothing is drawn either: the result is known.", caught_by="state")
def draws_at_one(x, p, training=True, *, generator=None):
    if training and p == 1:
        torch.rand(x.shape, generator=generator)
    return dropout(x, p, training, generator=generator)


@exercise.wrong(
    "Pass the generator on to torch.rand: without it the global one is used and nobody can repeat the draw."
)
def generator_ignored(x, p, training=True, *, generator=None):
    return dropout(x, p, training)


@exercise.wrong("The draw is float32 for every dtype of x: other dtypes consume the generator in another way.")
def draws_in_the_dtype_of_x(x, p, training=True, *, generator=None):
    check_inputs(x, p)
    if not training or p in (0, 1):
        return dropout(x, p, training)
    return (x / (1 - p)).masked_fill(torch.rand(x.shape, generator=generator, dtype=x.dtype) < p, 0)


@exercise.wrong(
    "rand_like fills in the memory order of x, which differs for a transposed view: draw torch.rand(x.shape)."
)
def drawn_like_x(x, p, training=True, *, generator=None):
    check_inputs(x, p)
    if not training or p in (0, 1):
        return dropout(x, p, training)
    u = torch.rand_like(x, dtype=torch.float32, generator=generator)
    return (x / (1 - p)).masked_fill(u < p, 0)


@exercise.wrong("`torch.rand(*x.shape)` fails for a 0-d tensor: pass the shape as one argument.", caught_by="runs")
def shape_unpacked(x, p, training=True, *, generator=None):
    check_inputs(x, p)
    if not training or p in (0, 1):
        return dropout(x, p, training)
    return (x / (1 - p)).masked_fill(torch.rand(*x.shape, generator=generator) < p, 0)


@exercise.wrong("The scale is 1 / (1 - p) by definition, not one over the share that happened to be kept this time.")
def scaled_by_the_kept_share(x, p, training=True, *, generator=None):
    def apply(x, u):
        kept = (u >= p).to(x.dtype).mean().clamp(min=1e-6) if x.numel() else 1
        return (x / kept).masked_fill(u < p, 0)

    return with_mask(x, p, training, generator, apply)


@exercise.wrong("Training is the default: without the argument, drop.")
def eval_by_default(x, p, training=False, *, generator=None):
    return dropout(x, p, training, generator=generator)


@exercise.wrong("Draw all coins with one call of torch.rand: a loop over rows costs one call each.", caught_by="growth")
def loop_over_rows(x, p, training=True, *, generator=None):
    check_inputs(x, p)
    if not training or p in (0, 1) or x.ndim < 2 or not len(x):
        return dropout(x, p, training, generator=generator)
    u = torch.stack([torch.rand(row.shape, generator=generator) for row in x])
    return (x / (1 - p)).masked_fill(u < p, 0)


@exercise.wrong("Normal numbers are not uniform: below p lies another share of them. Draw with torch.rand.")
def normal_draws(x, p, training=True, *, generator=None):
    check_inputs(x, p)
    if not training or p in (0, 1):
        return dropout(x, p, training)
    return (x / (1 - p)).masked_fill(torch.randn(x.shape, generator=generator) < p, 0)


@exercise.wrong(
    "Return a new tensor also where nothing is dropped: who changes the result would change x.", caught_by="inputs"
)
def returns_x_itself(x, p, training=True, *, generator=None):
    check_inputs(x, p)
    return x if p == 0 or not training else dropout(x, p, training, generator=generator)


@exercise.wrong("`x *= ...` and masked_fill_ change the caller's tensor: make a new one.", caught_by="inputs")
def in_place(x, p, training=True, *, generator=None):
    result = dropout(x, p, training, generator=generator)
    x.data.copy_(result)
    return result


@exercise.wrong(
    "With p = 1 the zeros must stay connected to x: backward() through fresh zeros raises an error. "
    "masked_fill of everything gives zeros with gradient 0."
)
def zeros_without_a_graph(x, p, training=True, *, generator=None):
    check_inputs(x, p)
    return torch.zeros_like(x) if training and p == 1 else dropout(x, p, training, generator=generator)


@exercise.wrong(
    "Computing in float32 turns a float16 or float64 x into another dtype: keep the dtype of x, for example with "
    "a bool mask."
)
def float32_result(x, p, training=True, *, generator=None):
    return with_mask(x, p, training, generator, lambda x, u: (x.float() / (1 - p)).masked_fill(u < p, 0))


@exercise.wrong("`p` out of range is an error in eval mode too: check before anything else.", caught_by="errors")
def checks_in_training_only(x, p, training=True, *, generator=None):
    if not training:
        return x.clone()
    return dropout(x, p, training, generator=generator)


@exercise.wrong("An integer tensor is refused with a TypeError, not silently turned into floats.", caught_by="errors")
def casts_integers(x, p, training=True, *, generator=None):
    return dropout(x if x.is_floating_point() else x.float(), p, training, generator=generator)


@exercise.wrong(
    "The mask is no function of x, but x must stay in the graph: no detach(), no no_grad().", caught_by="gradients"
)
def cuts_the_graph(x, p, training=True, *, generator=None):
    if training and p == 1:
        return dropout(x, p)
    return dropout(x.detach(), p, training, generator=generator)


@exercise.wrong(
    "The kept entries are scaled in the gradient too: here only the forward value is.", caught_by="gradients"
)
def gradient_not_scaled(x, p, training=True, *, generator=None):
    def apply(x, u):
        kept = x.masked_fill(u < p, 0)
        return kept + (x.detach() * (1 / (1 - p)) - x.detach()).masked_fill(u < p, 0)

    return with_mask(x, p, training, generator, apply)


@exercise.wrong(
    "Full-size float tensors for mask and scale are kept for backward: a bool mask takes a quarter.", caught_by="cost"
)
def keeps_too_much(x, p, training=True, *, generator=None):
    def apply(x, u):
        kept = torch.where(u >= p, x, torch.zeros_like(x))
        return kept * torch.full_like(x, 1 / (1 - p)) * (u >= p).to(x.dtype)

    return with_mask(x, p, training, generator, apply)


@exercise.right("torch.where with a scale")
def by_where(x, p, training=True, *, generator=None):
    if not x.is_floating_point():
        raise TypeError
    if p < 0 or p > 1:
        raise ValueError
    if not training or p == 0:
        return x + 0
    if p == 1:
        return torch.where(torch.zeros(x.shape, dtype=torch.bool), x, torch.zeros_like(x))
    keep = torch.rand(x.shape, generator=generator) >= p
    return torch.where(keep, x * (1 / (1 - p)), 0.0)


@exercise.right("fill first, multiply by one float mask afterwards")
def by_float_mask(x, p, training=True, *, generator=None):
    if not 0 <= p <= 1:
        raise ValueError
    if not x.is_floating_point():
        raise TypeError
    if not training or p == 0:
        return x.clone()
    mask = (torch.rand(x.shape, generator=generator) >= p) if p < 1 else torch.zeros(x.shape, dtype=torch.bool)
    return x.masked_fill(~mask, 0) * (1 / (1 - p) if p < 1 else 0)
