"""Parameter groups for an optimizer: decay for weights, none for biases and scales."""

from typing import Any

import torch
from torch import nn

from grader import Case, Exercise


def decay_param_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split a model's trainable parameters into a group with weight decay and one without.

    Args:
        model: any module.
        weight_decay: strength of the decay, >= 0.

    Returns:
        Two groups for `torch.optim`, in this order, both always present (a list of parameters may be empty):

        - `{"params": [...], "weight_decay": weight_decay}`: every trainable parameter with two or more axes;
        - `{"params": [...], "weight_decay": 0.0}`: the other trainable ones (biases, norm scales, 0-d).

        `"params"` are lists of the model's own `nn.Parameter` objects in the order of
        `model.named_parameters()`, each once, tied ones too. Frozen parameters (`requires_grad` False) are in
        neither. The number of axes decides; a parameter's name says nothing.

    Raises:
        ValueError: `weight_decay` is negative.

    Example:
        >>> groups = decay_param_groups(torch.nn.Linear(3, 2), 0.01)
        >>> [(group["weight_decay"], [tuple(p.shape) for p in group["params"]]) for group in groups]
        [(0.01, [(2, 3)]), (0.0, [(2,)])]
    """
    if weight_decay < 0:
        raise ValueError(f"weight_decay must not be negative, got {weight_decay}")
    trainable = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]


exercise = Exercise(
    decay_param_groups,
    points=8,
    extra=True,
    hints=(
        "What tells a weight matrix from a bias or a norm's scale, if not its name?",
        "model.parameters() visits a tied parameter once already. Leave out what has requires_grad False, then "
        "ask every parameter for its number of axes.",
        'trainable = [p for p in model.parameters() if p.requires_grad]; the groups are {"params": [p for p in '
        'trainable if p.ndim >= 2], "weight_decay": weight_decay} and the same with p.ndim < 2 and 0.0.',
    ),
    source="D2L linear-regression/weight-decay",
)


@exercise.truth
def truth(model, weight_decay):
    seen, decayed, plain = set(), [], []
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is None or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            if parameter.requires_grad:
                (plain if len(parameter.shape) in (0, 1) else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


@exercise.probe
def groups_of(candidate, kind, weight_decay, step=False):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))
            self.bias = nn.Parameter(torch.ones(4, 3))
            self.temperature = nn.Parameter(torch.tensor(2.0))
            self.register_parameter("absent", None)
            self.register_buffer("table", torch.ones(2, 2))

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(5, 3)
            self.norm = nn.LayerNorm(3)
            self.norm_again = self.norm
            self.head = nn.Linear(3, 5)
            self.head.weight = self.embed.weight

    with torch.random.fork_rng(devices=[]):
        if kind == "linear, batch norm, embedding":
            model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
        elif kind == "convolutions in blocks":
            block = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv1d(3, 1, 2, bias=False))
            model = nn.ModuleDict({"body": nn.ModuleList([block, nn.GroupNorm(1, 3)]), "end": nn.Bilinear(2, 3, 1)})
        elif kind == "tied":
            model = nn.Sequential(Tied(), nn.Linear(5, 2))
        elif kind == "frozen":
            model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
            model[0].requires_grad_(requires_grad=False)
            model[2].bias.requires_grad_(requires_grad=False)
        elif kind == "all frozen":
            model = nn.Linear(3, 2).requires_grad_(requires_grad=False)
        elif kind == "no biases":
            model = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(1, 2, bias=False))
        elif kind == "no matrices":
            model = nn.Sequential(nn.BatchNorm1d(3), nn.PReLU())
        elif kind == "no parameters":
            model = nn.Sequential(nn.ReLU(), nn.Flatten())
        else:
            model = nn.Sequential(Scaled(), nn.LSTM(2, 3))
    names = {id(p): name for name, p in model.named_parameters()}
    before = [(p, p.requires_grad, p._version) for p in model.parameters()]
    if step:
        for p in model.parameters():
            p.data.fill_(1.0)
            p.grad = torch.zeros_like(p)
        torch.optim.SGD(candidate(model, weight_decay), lr=0.5, weight_decay=0.25).step()
        return {name: p.detach().clone() for name, p in model.named_parameters()}
    groups = candidate(model, weight_decay)
    report = []
    for group in groups:
        kept, decay = group["params"], group.get("weight_decay")
        report.append(
            {
                "a list": isinstance(kept, list),
                "params": [names.get(id(p), "not a parameter of the model") for p in kept],
                "weight_decay": float(decay) if isinstance(decay, int) else decay,
                "keys": sorted(group),
            }
        )
    changed = any(p.requires_grad != flag or p._version != version for p, flag, version in before)
    return {"groups": report, "model changed": changed}


@exercise.cases
def cases(draw):
    decay = round(float(draw.uniform(1, low=0.01, high=0.2)), 3)
    yield Case("linear layers, batch norm, embedding", "linear, batch norm, embedding", 0.01)
    yield Case("convolutions in nested blocks", "convolutions in blocks", decay)
    yield Case("a tied embedding", "tied", 0.1)
    yield Case("a frozen layer and a frozen bias", "frozen", decay)
    yield Case("a scale named weight, a matrix named bias", "named", 0.02)
    yield Case("layers without biases", "no biases", 0.3)
    yield Case("one optimizer step", "linear, batch norm, embedding", 0.5, step=True)
    yield Case("no decay at all", "tied", 0.0, edge=True)
    yield Case("everything frozen", "all frozen", 0.1, edge=True)
    yield Case("a module without parameters", "no parameters", 0.1, edge=True)
    yield Case("only scales and biases", "no matrices", decay, hidden=True)
    yield Case("one optimizer step with a frozen layer", "frozen", 0.5, step=True, hidden=True)
    yield Case("one optimizer step with a tied embedding", "tied", 0.3, step=True, hidden=True)
    yield Case("negative decay", "linear, batch norm, embedding", -0.01, raises=ValueError)
    yield Case("negative decay, no parameters", "no parameters", -1.0, raises=ValueError, hidden=True)


def split(parameters, weight_decay, has_decay):
    if weight_decay < 0:
        raise ValueError
    trainable = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in trainable if has_decay(p)], "weight_decay": weight_decay},
        {"params": [p for p in trainable if not has_decay(p)], "weight_decay": 0.0},
    ]


@exercise.wrong(
    "The name does not tell: a norm's scale is called weight too, and the owner may name a matrix bias. Count axes."
)
def by_name(model, weight_decay):
    biases = {id(p) for name, p in model.named_parameters() if "bias" in name}
    return split(model.parameters(), weight_decay, lambda p: id(p) not in biases)


@exercise.wrong(
    "A tied parameter appears twice: torch wants every parameter listed once, as model.parameters() lists it."
)
def tied_twice(model, weight_decay):
    named = model.named_parameters(remove_duplicate=False)
    return split([p for _, p in named], weight_decay, lambda p: p.ndim >= 2)


@exercise.wrong("Frozen parameters belong to neither group: with an old .grad, decay would still move them.")
def frozen_kept(model, weight_decay):
    if weight_decay < 0:
        raise ValueError
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


@exercise.wrong("A generator is empty once somebody has walked through it: make the params lists.")
def generators(model, weight_decay):
    groups = decay_param_groups(model, weight_decay)
    return [{**group, "params": (p for p in group["params"])} for group in groups]


@exercise.wrong("Biases and norm scales do not decay: shrinking them does not make the function simpler.")
def decay_on_all(model, weight_decay):
    return split(model.parameters(), weight_decay, lambda _: True)


@exercise.wrong("Both groups are always there, even empty: callers count on two.")
def empty_group_dropped(model, weight_decay):
    return [group for group in decay_param_groups(model, weight_decay) if group["params"]]


@exercise.wrong("Weights of convolutions have more than two axes: decay everything with two or more.")
def exactly_two_axes(model, weight_decay):
    return split(model.parameters(), weight_decay, lambda p: p.ndim == 2)


@exercise.wrong("Two axes are enough: the weight of a linear layer is a matrix. Decay from ndim >= 2 on, not > 2.")
def more_than_two_axes(model, weight_decay):
    return split(model.parameters(), weight_decay, lambda p: p.ndim > 2)


@exercise.wrong("A matrix with one row or one column is still a matrix: count all axes, not those longer than 1.")
def long_axes_only(model, weight_decay):
    return split(model.parameters(), weight_decay, lambda p: p.squeeze().ndim >= 2)


@exercise.wrong("The group with decay comes first.")
def groups_swapped(model, weight_decay):
    return decay_param_groups(model, weight_decay)[::-1]


@exercise.wrong(
    "Say weight_decay 0.0 in the second group: without it the optimizer's own default applies to that group."
)
def second_decay_left_out(model, weight_decay):
    first, second = decay_param_groups(model, weight_decay)
    return [first, {"params": second["params"]}]


@exercise.wrong(
    "state_dict() hands out detached tensors, which are not the parameters, and buffers among them: an optimizer "
    "of those trains nothing. Use model.parameters()."
)
def from_the_state_dict(model, weight_decay):
    found = [nn.Parameter(t.detach()) for t in model.state_dict().values() if t.is_floating_point()]
    return split(found, weight_decay, lambda p: p.ndim >= 2)


@exercise.wrong("Only the layers at the top are visited: parameters() goes into nested modules by itself.")
def top_layers_only(model, weight_decay):
    layers = [model, *model.children()]
    found = {id(p): p for layer in layers for p in layer.parameters(recurse=False)}
    return split(found.values(), weight_decay, lambda p: p.ndim >= 2)


@exercise.wrong("A scalar parameter, such as a temperature, has no axes at all: it belongs to those without decay.")
def scalars_decay(model, weight_decay):
    return split(model.parameters(), weight_decay, lambda p: p.ndim != 1)


@exercise.wrong("Hand out the parameters themselves: a clone or a detached copy is not what the model computes with.")
def copies(model, weight_decay):
    groups = decay_param_groups(model, weight_decay)
    return [{**group, "params": [p.detach().clone() for p in group["params"]]} for group in groups]


@exercise.wrong("Not only nn.Linear has weights: embeddings, convolutions and your own matrices decay too.")
def linear_layers_only(model, weight_decay):
    linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    return split(model.parameters(), weight_decay, lambda p: id(p) in linear)


@exercise.wrong("A negative decay makes the weights grow: refuse it with a ValueError.", caught_by="errors")
def negative_decay(model, weight_decay):
    trainable = [p for p in model.parameters() if p.requires_grad]
    decayed, plain = [p for p in trainable if p.ndim >= 2], [p for p in trainable if p.ndim < 2]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


@exercise.wrong("Keep the order of named_parameters(): a saved optimizer state is matched by position.")
def sorted_by_name(model, weight_decay):
    named = sorted(model.named_parameters(), key=lambda item: item[0])
    return split([p for _, p in named], weight_decay, lambda p: p.ndim >= 2)


@exercise.wrong("Freezing is not this function's task: leave requires_grad as it is.")
def thaws(model, weight_decay):
    return split([p.requires_grad_() for p in model.parameters()], weight_decay, lambda p: p.ndim >= 2)


@exercise.right("one walk that fills two lists")
def one_walk(model, weight_decay):
    if weight_decay < 0:
        raise ValueError
    matrices, rest = [], []
    for _, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.dim() > 1:
            matrices.append(parameter)
        else:
            rest.append(parameter)
    return [dict(params=matrices, weight_decay=weight_decay), dict(params=rest, weight_decay=0)]


@exercise.right("filter with a key function over a dict of unique parameters")
def by_filter(model, weight_decay):
    if not weight_decay >= 0:
        raise ValueError
    unique = list(dict.fromkeys(p for _, p in model.named_parameters(remove_duplicate=False) if p.requires_grad))
    return [
        {"weight_decay": decay, "params": list(filter(lambda p: (len(p.size()) > 1) == wide, unique))}
        for decay, wide in ((weight_decay, True), (0.0, False))
    ]
