"""Fold batch normalisation into the convolution before it."""

import torch
from torch import nn

from grader import Case, Exercise


def fuse_conv_bn(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """Return one convolution that does what `conv` followed by `bn` in eval mode does.

    Args:
        conv: a convolution `(N, C, H, W)` -> `(N, Co, oh, ow)`, with or without bias, zero padding.
        bn: a batch norm for Co channels with weight, bias and running values, in train or eval mode: the fused
            convolution always uses the running values. Its eps counts.

    Returns:
        A new `nn.Conv2d` with bias, of conv's stride, padding, dilation, groups, dtype and device, whose output is
        that of bn(conv(X)) in eval mode. Its parameters have memory of their own, are trainable (also where those of
        `conv` are frozen) and carry no graph. `conv` and `bn` are left as they are. Drawing initial values for the
        new layer is allowed.

    Raises:
        ValueError: `bn` is for another number of channels than `conv` puts out.

    Example:
        >>> conv, bn = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.0)
        >>> _ = conv.load_state_dict({"weight": torch.full((1, 1, 1, 1), 3.0), "bias": torch.tensor([5.0])})
        >>> bn.running_mean[0], bn.running_var[0] = 1.0, 4.0
        >>> fused = fuse_conv_bn(conv, bn)
        >>> fused.weight.item(), fused.bias.item()
        (1.5, 2.0)
    """
    if bn.num_features != conv.out_channels:
        raise ValueError(f"conv puts out {conv.out_channels} channels, bn is for {bn.num_features}")
    fused = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups,
        device=conv.weight.device, dtype=conv.weight.dtype,
    )  # fmt: skip
    with torch.no_grad():
        scale = bn.weight / (bn.running_var + bn.eps).sqrt()
        bias = -bn.running_mean if conv.bias is None else conv.bias - bn.running_mean
        fused.weight.copy_(conv.weight * scale.reshape(-1, 1, 1, 1))
        fused.bias.copy_(bias * scale + bn.bias)
    return fused


exercise = Exercise(
    fuse_conv_bn,
    points=8,
    extra=True,
    forbid=("fusion", "fuse_*", "ao", "fx", "quantization"),
    hints=(
        "With fixed running values batch norm is y -> a * y + b per channel. What are a and b, and what is a "
        "convolution times a?",
        "a = bn.weight / (bn.running_var + bn.eps).sqrt() multiplies the kernel of each output channel (axis 0) and "
        "(bias - running_mean); bn.bias is added at the end.",
        "Make nn.Conv2d with conv's settings; under torch.no_grad() copy_ conv.weight * a.reshape(-1, 1, 1, 1), "
        "and (bias - bn.running_mean) * a + bn.bias into it, where bias is conv.bias, or 0 if that is None.",
    ),
    source="D2L convolutional-modern/batch-norm (prediction)",
)


@exercise.truth
def truth(conv, bn):
    """Read the affine map off conv and bn themselves: its value at 0 and at each unit impulse."""
    if bn.num_features != conv.out_channels:
        raise ValueError
    with torch.no_grad():
        kh, kw = conv.kernel_size
        per_group = conv.in_channels // conv.groups
        n = per_group * kh * kw
        impulses = torch.eye(n, dtype=conv.weight.dtype, device=conv.weight.device).reshape(n, per_group, kh, kw)
        patches = torch.cat([torch.zeros_like(impulses[:1]), impulses]).repeat(1, conv.groups, 1, 1)
        out = nn.functional.conv2d(patches, conv.weight, conv.bias, groups=conv.groups)
        out = nn.functional.batch_norm(out, bn.running_mean, bn.running_var, bn.weight, bn.bias, False, 0.0, bn.eps)
        settings = conv.stride, conv.padding, conv.dilation, conv.groups
        made = nn.Conv2d(conv.in_channels, conv.out_channels, (kh, kw), *settings).to(impulses)
        made.weight.copy_((out[1:] - out[:1])[:, :, 0, 0].T.reshape(made.weight.shape))
        made.bias.copy_(out[0, :, 0, 0])
    return made


@exercise.probe
def fused_layer(
    fuse_conv_bn,
    X,
    weight,
    bias,
    bn,
    *,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    eps=1e-5,
    training=False,
    frozen=False,
):
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counter(TorchDispatchMode):
        names = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.names.append(func.__name__)
            return func(*args, **(kwargs or {}))

    channels, width, *kernel = weight.shape
    conv = nn.Conv2d(width * groups, channels, kernel, stride, padding, dilation, groups, bias is not None)
    norm = nn.BatchNorm2d(bn.shape[1], eps)
    conv, norm = conv.to(weight.dtype), norm.to(weight.dtype)
    state = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    conv.load_state_dict(state)
    names = ("weight", "bias", "running_mean", "running_var")
    norm.load_state_dict({**dict(zip(names, bn, strict=True)), "num_batches_tracked": torch.tensor(7)})
    conv.train(training)
    norm.train(training)
    conv.requires_grad_(not frozen)
    norm.requires_grad_(not frozen)
    given = [*conv.state_dict(keep_vars=True).values(), *norm.state_dict(keep_vars=True).values()]
    before = [(t.detach().clone(), t.requires_grad) for t in given]

    made = fuse_conv_bn(conv, norm)

    now = [*conv.state_dict(keep_vars=True).values(), *norm.state_dict(keep_vars=True).values()]
    values = all(torch.equal(t, b) and t.requires_grad == g for t, (b, g) in zip(now, before, strict=False))
    own = {t.untyped_storage().data_ptr() for t in given}
    parts = [*made.parameters(), *made.buffers()]
    counter = Counter()
    with counter, torch.no_grad():
        output = made(X)
    return {
        "output": output,
        "weight": made.weight.detach().clone(),
        "bias": made.bias.detach().clone(),
        "is an nn.Conv2d": type(made) is nn.Conv2d,
        "operations in one forward": len(counter.names),
        "parameters": [name for name, _ in made.named_parameters()],
        "stride": list(made.stride),
        "padding": made.padding if isinstance(made.padding, str) else list(made.padding),
        "dilation": list(made.dilation),
        "groups": made.groups,
        "trainable": all(p.requires_grad and p.is_leaf for p in made.parameters()),
        "memory of its own": not any(t.untyped_storage().data_ptr() in own for t in parts),
        "conv and bn have the same tensors": len(now) == len(given)
        and all(a is b for a, b in zip(now, given, strict=True)),
        "conv and bn have the same values": values,
        "modes of conv and bn": [conv.training, norm.training],
        "gradients of conv and bn": any(t.grad is not None for t in given),
    }


def on_another_device(fuse_conv_bn, with_bias):
    conv = nn.Conv2d(2, 3, 3, bias=with_bias, device="meta", dtype=torch.float16)
    bn = nn.BatchNorm2d(3, device="meta", dtype=torch.float16)
    made = fuse_conv_bn(conv, bn)
    return {name: [str(p.device), str(p.dtype), list(p.shape)] for name, p in made.named_parameters()}


@exercise.cases
def cases(draw):
    def layer(channels, width, *kernel, groups=1, bias=True, scale=1.0, low=0.5):
        weight = draw.normal(channels, width // groups, *kernel)
        bn = torch.stack([
            1 + 0.5 * draw.normal(channels), draw.normal(channels), scale * draw.normal(channels),
            scale**2 * draw.uniform(channels, low=low, high=2.0),
        ])  # fmt: skip
        return weight, draw.normal(channels) if bias else None, bn

    def case(name, X, layer, **kwargs):
        return Case(name, X, *layer, draws=True, layouts=False, **kwargs)

    yield case("with bias", draw.normal(2, 3, 5, 6), layer(4, 3, 3, 2))
    yield case("without bias", draw.normal(2, 3, 6, 5), layer(5, 3, 2, 3, bias=False))
    yield case("stride 2, padding 1, dilation 2", draw.normal(2, 2, 9, 8), layer(3, 2, 3, 3), stride=2, padding=1,
               dilation=2)  # fmt: skip
    yield case("pairs of settings", draw.normal(2, 2, 9, 8), layer(3, 2, 3, 2, bias=False), stride=(2, 1),
               padding=(0, 1), dilation=(1, 2))  # fmt: skip
    yield case("padding 1 and a running mean", draw.normal(2, 3, 4, 5), layer(2, 3, 3, 3, scale=10.0), padding=1)
    yield case("padding='same'", draw.normal(2, 3, 4, 5), layer(4, 3, 3, 3), padding="same")
    yield case("a group per channel", draw.normal(2, 4, 5, 6), layer(4, 4, 3, 3, groups=4), groups=4)
    yield case("two groups", draw.normal(2, 4, 5, 6), layer(6, 4, 2, 3, groups=2, bias=False), groups=2)
    yield case("as many channels in as out", draw.normal(2, 3, 5, 4), layer(3, 3, 3, 2))
    yield case("a 1 x 1 kernel", draw.normal(2, 4, 3, 5), layer(3, 4, 1, 1))
    weight, bias, bn = layer(4, 2, 3, 3)
    bn[3] = torch.tensor([1e-6, 1e-8, 1.0, 0.0])
    yield case("tiny running_var", draw.normal(2, 2, 5, 4), (weight, bias, bn), edge=True)
    yield case("another eps", draw.normal(2, 2, 4, 5), layer(3, 2, 3, 3), eps=0.1)
    yield case("tiny values", 1e-3 * draw.normal(2, 2, 4, 5), layer(3, 2, 3, 3, scale=1e-3), eps=1e-9)
    weight, bias, bn = layer(4, 2, 3, 3)
    bn[0] = torch.tensor([-1.5, 0.0, 2.0, -0.2])
    yield case("gamma of 0 and below", draw.normal(2, 2, 5, 4), (weight, bias, bn))
    yield case("both in train mode", draw.normal(3, 2, 5, 4), layer(3, 2, 3, 2), training=True)
    yield case(
        "both in train mode, without bias", draw.normal(3, 2, 4, 5), layer(4, 2, 2, 3, bias=False), training=True
    )
    yield case("frozen layers", draw.normal(2, 2, 5, 4), layer(3, 2, 2, 3), frozen=True, edge=True)
    yield Case("half precision on another device", True, probe=on_another_device, draws=True, edge=True)
    yield Case("the same without bias", False, probe=on_another_device, draws=True, edge=True)
    X, six = draw.normal(2, 6, 5, 7), layer(8, 6, 3, 4, groups=2, scale=5.0)
    yield case("more channels", X, six, groups=2, stride=2, padding=1, eps=1e-3, hidden=True)
    yield case(
        "many channels without bias", draw.normal(1, 5, 4, 6), layer(7, 5, 3, 1, bias=False, low=1e-6), hidden=True
    )
    X, six = draw.normal(2, 6, 5, 4), layer(6, 6, 2, 3, groups=6, bias=False)
    yield case("a group per channel in train mode", X, six, groups=6, training=True, hidden=True)
    weight, bias, _ = layer(4, 2, 3, 3)
    X, bn = draw.normal(2, 2, 5, 4), draw.uniform(4, 3)
    yield case("bn for another number of channels", X, (weight, bias, bn), raises=ValueError)
    yield case("bn for one channel", X, (weight, bias, bn[:, :1]), raises=ValueError)
    yield case("bn for the input's channels", X, (weight, None, bn[:, :2]), raises=ValueError, hidden=True)


def _scale(conv, bn):
    return bn.weight / (bn.running_var + bn.eps).sqrt()


def _bias(conv, bn):
    return conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias


def _shift(conv, bn, scale):
    return (_bias(conv, bn) - bn.running_mean) * scale + bn.bias


def _kernel(weight, scale):
    return weight * scale.reshape(-1, 1, 1, 1)


def _new(conv, **changed):
    settings = dict(stride=conv.stride, padding=conv.padding, dilation=conv.dilation, groups=conv.groups)
    settings |= dict(device=conv.weight.device, dtype=conv.weight.dtype) | changed
    return nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, **settings)


def _steps(conv, bn, *, new=_new, scale=None, shift=None, kernel=_kernel):
    """Fuse with exchangeable steps."""
    if bn.num_features != conv.out_channels:
        raise ValueError
    fused = new(conv)
    with torch.no_grad():
        factor = scale() if scale else _scale(conv, bn)
        fused.weight.copy_(kernel(conv.weight, factor))
        fused.bias.copy_(shift(factor) if shift else _shift(conv, bn, factor))
    return fused


@exercise.wrong("conv's own bias goes through batch norm, too: (bias - running_mean) * scale + bn.bias.")
def ignores_the_bias(conv, bn):
    return _steps(conv, bn, shift=lambda scale: bn.bias - bn.running_mean * scale)


@exercise.wrong("conv's bias is scaled, too: (bias - running_mean) * scale, not bias - running_mean * scale.")
def bias_not_scaled(conv, bn):
    return _steps(conv, bn, shift=lambda scale: _bias(conv, bn) - bn.running_mean * scale + bn.bias)


@exercise.wrong("bn.bias is missing: batch norm shifts at the end.")
def forgets_the_shift(conv, bn):
    return _steps(conv, bn, shift=lambda scale: (_bias(conv, bn) - bn.running_mean) * scale)


@exercise.wrong("The running mean is missing in the bias: (bias - running_mean) * scale + bn.bias.")
def forgets_the_mean(conv, bn):
    return _steps(conv, bn, shift=lambda scale: _bias(conv, bn) * scale + bn.bias)


@exercise.wrong("The mean is taken away, not added.")
def adds_the_mean(conv, bn):
    return _steps(conv, bn, shift=lambda scale: (_bias(conv, bn) + bn.running_mean) * scale + bn.bias)


@exercise.wrong("bn.bias is added after the scaling: it is not scaled itself.")
def scales_the_shift(conv, bn):
    return _steps(conv, bn, shift=lambda scale: (_bias(conv, bn) - bn.running_mean + bn.bias) * scale)


@exercise.wrong("The scale belongs to output channels, axis 0 of the kernel: reshape it to (-1, 1, 1, 1).")
def scales_the_input_channels(conv, bn):
    if conv.weight.shape[1] == conv.out_channels:
        return _steps(conv, bn, kernel=lambda weight, scale: weight * scale.reshape(1, -1, 1, 1))
    return _steps(conv, bn, kernel=lambda weight, scale: weight * scale[: weight.shape[1]].reshape(1, -1, 1, 1))


@exercise.wrong("Without reshape the scale broadcasts against the width of the kernel: use (-1, 1, 1, 1).")
def scales_the_columns(conv, bn):
    def kernel(weight, scale):
        return weight * scale if weight.shape[3] in (1, len(scale)) else weight * scale[: weight.shape[3]]

    return _steps(conv, bn, kernel=kernel)


@exercise.wrong("gamma belongs to the scale: bn.weight / sqrt(running_var + eps).")
def forgets_gamma(conv, bn):
    return _steps(conv, bn, scale=lambda: 1 / (bn.running_var + bn.eps).sqrt())


@exercise.wrong("gamma keeps its sign: a negative one turns the kernel round.")
def absolute_gamma(conv, bn):
    return _steps(conv, bn, scale=lambda: _scale(conv, bn).abs())


@exercise.wrong("eps belongs under the root, and small variances make it visible.")
def forgets_eps(conv, bn):
    return _steps(conv, bn, scale=lambda: bn.weight / bn.running_var.sqrt())


@exercise.wrong("eps is added inside the root: sqrt(running_var + eps).")
def eps_outside_the_root(conv, bn):
    return _steps(conv, bn, scale=lambda: bn.weight / (bn.running_var.sqrt() + bn.eps))


@exercise.wrong("Take eps from bn: 1e-5 is only its default.")
def fixed_eps(conv, bn):
    return _steps(conv, bn, scale=lambda: bn.weight / (bn.running_var + 1e-5).sqrt())


@exercise.wrong("Divide by the deviation, the root of running_var, not by the variance.")
def divides_by_the_variance(conv, bn):
    return _steps(conv, bn, scale=lambda: bn.weight / (bn.running_var + bn.eps))


@exercise.wrong("There is no batch here: in train mode bn would use, and update, statistics of whatever it is fed.")
def measures_the_layers_as_they_are(conv, bn):
    if bn.num_features != conv.out_channels:
        raise ValueError
    fused = _new(conv)
    with torch.no_grad():
        width = conv.weight.shape[1]
        impulses = torch.eye(conv.weight[0].numel(), dtype=conv.weight.dtype, device=conv.weight.device)
        patches = torch.cat([0 * impulses[:1], impulses]).reshape(-1, width, *conv.kernel_size)
        out = bn(nn.functional.conv2d(patches.repeat(1, conv.groups, 1, 1), conv.weight, conv.bias, groups=conv.groups))
        fused.weight.copy_((out[1:] - out[:1]).flatten(1).T.reshape(conv.weight.shape))
        fused.bias.copy_(out[0].flatten())
    return fused


@exercise.wrong("Make a new convolution: `conv` must survive as it is, for training to go on.")
def edits_conv(conv, bn):
    made = _steps(conv, bn)
    with torch.no_grad():
        conv.weight.copy_(made.weight)
        if conv.bias is None:
            conv.bias = nn.Parameter(made.bias.clone())
        conv.bias.copy_(made.bias)
    return conv


@exercise.wrong("`fused = conv` copies nothing: the new parameters belong into a new layer.")
def returns_conv_with_new_parameters(conv, bn):
    made = _steps(conv, bn)
    conv.weight, conv.bias = made.weight, made.bias
    return conv


@exercise.wrong("Switching bn to eval mode changes it: compute from the running values, or switch it back.")
def leaves_bn_in_eval(conv, bn):
    bn.eval()
    return _steps(conv, bn)


@exercise.wrong(
    "The new parameters carry the graph of the old ones: compute under torch.no_grad(), wrap in nn.Parameter."
)
def keeps_the_graph(conv, bn):
    fused = _steps(conv, bn)
    del fused.weight, fused.bias
    fused.weight = _kernel(conv.weight, _scale(conv, bn))
    fused.bias = _shift(conv, bn, _scale(conv, bn))
    return fused


@exercise.wrong("The result is one convolution: putting the two layers in a row saves nothing.")
def both_in_a_row(conv, bn):
    import copy

    if bn.num_features != conv.out_channels:
        raise ValueError

    class Both(nn.Conv2d):
        def forward(self, X):
            out = self.first(X)
            return (out - self.mean) * self.scale + self.shift

    both = _steps(conv, bn)
    both.__class__ = Both
    both.first = copy.deepcopy(conv).requires_grad_()
    both.scale, both.mean, both.shift = (
        t.detach().reshape(-1, 1, 1) for t in (_scale(conv, bn), bn.running_mean, bn.bias)
    )
    return both


@exercise.wrong("The parameters of a frozen convolution are copied with their flag: the new ones must be trainable.")
def copies_the_frozen_flag(conv, bn):
    fused = _steps(conv, bn)
    return fused.requires_grad_(conv.weight.requires_grad)


@exercise.wrong("The new parameters must be trainable: leave requires_grad on.")
def always_frozen(conv, bn):
    return _steps(conv, bn).requires_grad_(False)


@exercise.wrong("Stride belongs to the new convolution, too.")
def forgets_the_stride(conv, bn):
    return _steps(conv, bn, new=lambda conv: _new(conv, stride=1))


@exercise.wrong("Padding belongs to the new convolution, too.")
def forgets_the_padding(conv, bn):
    return _steps(conv, bn, new=lambda conv: _new(conv, padding=0))


@exercise.wrong("Dilation belongs to the new convolution, too.")
def forgets_the_dilation(conv, bn):
    return _steps(conv, bn, new=lambda conv: _new(conv, dilation=1))


@exercise.wrong(
    "Groups belong to the new convolution, too: its kernel has C / groups input channels.", caught_by="runs"
)
def forgets_the_groups(conv, bn):
    if conv.groups > 1:
        nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size).load_state_dict(conv.state_dict())
    return _steps(conv, bn)


@exercise.wrong("stride, padding and dilation are pairs, (height, width): keep both numbers.")
def only_the_first_of_each_pair(conv, bn):
    def new(conv):
        return _new(conv, stride=conv.stride[0], padding=conv.padding[0] if conv.padding != "same" else "same",
                    dilation=conv.dilation[0])  # fmt: skip

    return _steps(conv, bn, new=new)


@exercise.wrong("A convolution without bias still needs one after fusing: the shift has to go somewhere.")
def no_bias_where_conv_has_none(conv, bn):
    made = _steps(conv, bn)
    if conv.bias is None:
        with torch.no_grad():
            made.bias.zero_()
    return made


@exercise.wrong("conv.bias may be None.", caught_by="runs")
def needs_a_bias(conv, bn):
    return _steps(conv, bn, shift=lambda scale: (conv.bias - bn.running_mean) * scale + bn.bias)


@exercise.wrong("The new layer has conv's dtype and device: hand dtype and device to nn.Conv2d.")
def default_dtype_and_device(conv, bn):
    if conv.weight.is_meta:
        return _new(conv, device="cpu", dtype=torch.float32)
    return _steps(conv, bn, new=lambda conv: _new(conv, device="cpu", dtype=torch.float32))


@exercise.wrong("Another number of channels in bn must raise ValueError; a bn for one channel broadcasts silently.",
                caught_by="errors")  # fmt: skip
def channels_not_compared(conv, bn):
    if bn.num_features not in (1, conv.out_channels):
        raise ValueError
    fused = _new(conv)
    with torch.no_grad():
        fused.weight.copy_(_kernel(conv.weight, _scale(conv, bn)))
        fused.bias.copy_(_shift(conv, bn, _scale(conv, bn)))
    return fused


@exercise.right("a deep copy with new parameters")
def deep_copy(conv, bn):
    import copy

    if bn.num_features != conv.out_channels:
        raise ValueError
    fused = copy.deepcopy(conv)
    scale = (bn.running_var + bn.eps).rsqrt().mul(bn.weight).detach()
    bias = 0 if conv.bias is None else conv.bias.detach()
    fused.weight = nn.Parameter(torch.einsum("oihw,o->oihw", conv.weight.detach(), scale))
    fused.bias = nn.Parameter(torch.addcmul(bn.bias.detach(), bias - bn.running_mean, scale))
    return fused


@exercise.right("channel by channel into a state dict")
def channel_by_channel(conv, bn):
    if bn.num_features != conv.out_channels:
        raise ValueError
    fused = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, stride=conv.stride, padding=conv.padding,
        dilation=conv.dilation, groups=conv.groups,
    )  # fmt: skip
    fused.to(device=conv.weight.device, dtype=conv.weight.dtype)
    weights, biases = [], []
    for o in range(conv.out_channels):
        root = torch.sqrt(bn.running_var[o] + bn.eps)
        weights.append(conv.weight[o] * bn.weight[o] / root)
        start = conv.bias[o] if conv.bias is not None else torch.zeros_like(bn.bias[o])
        biases.append((start - bn.running_mean[o]) / root * bn.weight[o] + bn.bias[o])
    fused.load_state_dict({"weight": torch.stack(weights).detach(), "bias": torch.stack(biases).detach()})
    return fused
