"""A recurrent layer that reads both ways."""

import torch
import torch.nn.functional as F
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.rnn import FORBID
from reference.rnn.rnn_scan import rnn_scan


def bidirectional_rnn(
    x: Tensor,
    valid_lens: Tensor | None,
    fwd: tuple[Tensor, Tensor, Tensor],
    bwd: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Run one tanh recurrent layer forward and another backward over sequences of different lengths.

    Args:
        x: inputs, time first, padded, `(T, B, D)` with T >= 1. What stands at t >= valid_lens never matters, not
            even nan or inf.
        valid_lens: number of valid steps of each sequence, int64 `(B,)`, at least 1; more than T act as T. None
            means that all T steps are valid.
        fwd: w_ih `(H, D)`, w_hh `(H, H)` and b `(H,)` of the forward direction, as in `rnn_scan`. The state before the
            first step is zero.
        bwd: the same for the backward direction, which starts with a zero state at each sequence's own last valid
            step and walks towards t = 0.

    Returns:
        States, `(T, B, 2H)`: forward state after step t beside the backward state that has read t and all later
        valid steps; exactly 0 at t >= valid_lens. And the final states, `(2, B, H)`: forward after the last valid
        step, backward after t = 0. Gradients reach x (0 in the padding) and all six weights.

    Raises:
        ValueError: a valid_lens entry is below 1.

    Cost: at most 2 T + 2 matrix products and 8 T + 80 operations, whatever the batch: no loop over sequences.

    Example:
        >>> x = torch.tensor([[[1.0], [1.0]], [[2.0], [float("nan")]]])  # T = 2, B = 2; the second has one step
        >>> one, zero = torch.ones(1, 1), torch.zeros(1)
        >>> states, final = bidirectional_rnn(x, torch.tensor([2, 1]), (one, one, zero), (one, one, zero))
        >>> states[:, 0]  # tanh(1), tanh(2 + tanh(1)); backward tanh(1 + tanh(2)), tanh(2)
        tensor([[0.7616, 0.9614],
                [0.9920, 0.9640]])
        >>> states[:, 1]
        tensor([[0.7616, 0.7616],
                [0.0000, 0.0000]])
    """
    steps, batch, _ = x.shape
    lens = _valid_lengths(x, valid_lens)
    time = torch.arange(steps, device=x.device).unsqueeze(1)
    valid = (time < lens).unsqueeze(-1)
    mirror = torch.where(time < lens, lens - 1 - time, time).unsqueeze(-1)
    x = torch.where(valid, x, 0.0)
    ahead, _ = rnn_scan(x, None, *fwd)
    back, _ = rnn_scan(_mirrored(x, mirror), None, *bwd)
    back = _mirrored(back, mirror)
    last = ahead[lens - 1, torch.arange(batch, device=x.device)]
    return torch.where(valid, torch.cat([ahead, back], -1), 0.0), torch.stack([last, back[0]])


def _valid_lengths(x: Tensor, valid_lens: Tensor | None) -> Tensor:
    """Return the number of valid steps of each sequence, at most T, after checking it."""
    if valid_lens is None:
        return torch.full((x.shape[1],), x.shape[0], device=x.device)
    if (valid_lens < 1).any():
        raise ValueError("every sequence needs at least one valid step")
    return valid_lens.clamp(max=x.shape[0])


def _mirrored(sequences: Tensor, mirror: Tensor) -> Tensor:
    """Turn the valid part of each sequence round; `mirror` (T, B, 1) says which step comes to stand at t."""
    return sequences.gather(0, mirror.expand_as(sequences))


exercise = Exercise(
    bidirectional_rnn,
    points=12,
    gradients=("x", "fwd", "bwd"),
    cost=Cost(ops=8 * 20 + 80, matmuls=2 * 20 + 2),
    forbid=FORBID,
    uses=("rnn_scan",),
    hints=(
        "A backward layer is a forward layer that reads mirrored sequences. Where is the mirror of a short sequence?",
        "Within each sequence step t swaps places with step valid_len - 1 - t; one gather along time does it for the "
        "whole batch. Mirror the inputs, scan, mirror the states back.",
        "First put zeros in the padding with torch.where. mirror = torch.where(time < lens, lens - 1 - time, time); "
        "back = mirrored(rnn_scan(mirrored(x), None, *bwd)[0]). The forward final state is at lens - 1, the backward "
        "one at 0; torch.where again for the zeros of the result.",
    ),
    source="D2L recurrent-modern/bi-rnn",
)


@exercise.truth
def truth(x, valid_lens, fwd, bwd):
    steps, batch, _ = x.shape
    lens = [steps] * batch if valid_lens is None else [min(int(n), steps) for n in valid_lens]
    results, finals = [], []
    for n, length in enumerate(lens):
        row, zero = x[:length, n : n + 1], x.new_zeros(2, 1, fwd[1].shape[0])
        weights = [*fwd, torch.zeros_like(fwd[2]), *bwd, torch.zeros_like(bwd[2])]
        states, final = torch.rnn_tanh(row, zero, weights, True, 1, 0.0, False, True, False)
        results.append(F.pad(states, (0, 0, 0, 0, 0, steps - length)))
        finals.append(final)
    return torch.cat(results, 1), torch.cat(finals, 1)


def layer(draw, inputs, hidden, scale=1.0):
    """Draw w_ih, w_hh and b."""
    return (
        scale * draw.normal(hidden, inputs) / inputs**0.5,
        scale * draw.normal(hidden, hidden) / hidden**0.5,
        scale * 0.5 * draw.normal(hidden),
    )


@exercise.cases
def cases(draw):
    def both(inputs, hidden, scale=1.0):
        return layer(draw, inputs, hidden, scale), layer(draw, inputs, hidden, scale)

    yield Case("three lengths", draw.normal(5, 3, 4), torch.tensor([5, 2, 4]), *both(4, 6))
    yield Case("all full", draw.normal(4, 3, 2), torch.tensor([4, 4, 4]), *both(2, 5))
    yield Case("valid_lens=None", draw.normal(4, 2, 3), None, *both(3, 5))
    yield Case("lengths 1 to 6, unsorted", draw.normal(6, 6, 3), torch.tensor([3, 6, 1, 5, 2, 4]), *both(3, 2))
    yield Case("twenty steps", draw.normal(20, 3, 2), torch.tensor([20, 7, 13]), *both(2, 4), cost=True)
    padded = draw.normal(5, 3, 2)
    padded[2:, 0], padded[4:, 1], padded[1:, 2] = float("nan"), float("inf"), 1e30
    yield Case("nan, inf and 1e30 in the padding", padded, torch.tensor([2, 4, 1]), *both(2, 4), edge=True)
    yield Case("one step", draw.normal(1, 3, 2), torch.tensor([1, 1, 1]), *both(2, 4), edge=True)
    yield Case("a batch of one", draw.normal(5, 1, 3), torch.tensor([3]), *both(3, 2), edge=True)
    yield Case("lengths above T act as T", draw.normal(4, 3, 2), torch.tensor([9, 2, 5]), *both(2, 3), edge=True)
    yield Case(
        "float64", draw.normal(4, 2, 3, dtype=torch.float64), torch.tensor([2, 4]),
        *[tuple(w.double() for w in direction) for direction in both(3, 5)], edge=True,
    )  # fmt: skip
    yield Case("nobody has all steps", draw.normal(6, 2, 3), torch.tensor([2, 4]), *both(3, 4), hidden=True)
    yield Case(
        "one sequence of size 1000",
        draw.normal(5, 3, 2) * torch.tensor([[1.0], [1e3], [1.0]]),
        torch.tensor([3, 5, 1]),
        *both(2, 4),
        hidden=True,
    )
    yield Case(
        "tiny inputs and weights", 1e-3 * draw.normal(4, 3, 5), torch.tensor([4, 1, 3]), *both(5, 2, 1e-3), hidden=True
    )
    yield Case(
        "x stored batch first", draw.normal(3, 7, 4).transpose(0, 1), torch.tensor([5, 7, 2]), *both(4, 2), hidden=True
    )
    yield Case("one step of a batch of one", draw.normal(1, 1, 4), None, *both(4, 3), edge=True, hidden=True)
    yield Case("a length of 0", draw.normal(4, 3, 2), torch.tensor([2, 0, 4]), *both(2, 3), raises=ValueError)
    yield Case(
        "a length of -1", draw.normal(4, 2, 3), torch.tensor([3, -1]), *both(3, 2), raises=ValueError, hidden=True
    )


@exercise.growth("batch", sizes=(16, 32), ops=0.0, matmuls=0.0)
def more_rows(draw, size):
    lens = 1 + torch.arange(size) % 4
    return Case(f"batch of {size}", draw.normal(4, size, 3), lens, layer(draw, 3, 5), layer(draw, 3, 5))


@exercise.growth("steps", sizes=(16, 32), ops=1.0, matmuls=1.0, moved=1.0)
def more_steps(draw, size):
    lens = torch.tensor([size, size // 2, 3])
    return Case(f"{size} steps", draw.normal(size, 3, 4), lens, layer(draw, 4, 5), layer(draw, 4, 5))


def parts(x, valid_lens, fwd, bwd, mirrored=_mirrored):
    """Return the lengths, the mask and the states of both directions, all on the time axis of x."""
    lens = _valid_lengths(x, valid_lens)
    time = torch.arange(x.shape[0]).unsqueeze(1)
    valid = (time < lens).unsqueeze(-1)
    mirror = torch.where(time < lens, lens - 1 - time, time).unsqueeze(-1)
    x = torch.where(valid, x, 0.0)
    ahead, _ = rnn_scan(x, None, *fwd)
    back, _ = rnn_scan(mirrored(x, mirror), None, *bwd)
    return lens, valid, ahead, back, mirror


def joined(lens, valid, ahead, back):
    """Put both directions together as the solution does."""
    last = ahead[lens - 1, torch.arange(ahead.shape[1])]
    return torch.where(valid, torch.cat([ahead, back], -1), 0.0), torch.stack([last, back[0]])


@exercise.wrong(
    "Flipping the whole time axis makes short sequences read their padding first: mirror each within its length."
)
def whole_axis_flipped(x, valid_lens, fwd, bwd):
    lens, valid, ahead, _, _ = parts(x, valid_lens, fwd, bwd)
    back = rnn_scan(torch.where(valid, x, 0.0).flip(0), None, *bwd)[0].flip(0)
    return joined(lens, valid, ahead, back)


@exercise.wrong(
    "The backward states come out mirrored: turn them back, position t needs the state that has read t ... end."
)
def not_turned_back(x, valid_lens, fwd, bwd):
    lens, valid, ahead, back, mirror = parts(x, valid_lens, fwd, bwd)
    states, _ = joined(lens, valid, ahead, back)
    return states, joined(lens, valid, ahead, _mirrored(back, mirror))[1]


@exercise.wrong("The forward final state stands at each sequence's own last valid step, not at T - 1.")
def final_state_at_the_end(x, valid_lens, fwd, bwd):
    lens, valid, ahead, back, mirror = parts(x, valid_lens, fwd, bwd)
    back = _mirrored(back, mirror)
    states = torch.where(valid, torch.cat([ahead, back], -1), 0.0)
    return states, torch.stack([ahead[-1], back[0]])


@exercise.wrong("Forward and backward states stand side by side, 2H features; they are not added.", caught_by="shape")
def directions_added(x, valid_lens, fwd, bwd):
    lens, valid, ahead, back, mirror = parts(x, valid_lens, fwd, bwd)
    back = _mirrored(back, mirror)
    return torch.where(valid, ahead + back, 0.0), joined(lens, valid, ahead, back)[1]


@exercise.wrong("Two directions, two independent layers: the backward one has weights of its own.")
def shared_weights(x, valid_lens, fwd, bwd):
    return bidirectional_rnn(x, valid_lens, fwd, fwd)


@exercise.wrong("Select, do not multiply: 0 * nan is nan.", caught_by="finite")
def padding_multiplied(x, valid_lens, fwd, bwd):
    lens = _valid_lengths(x, valid_lens)
    time = torch.arange(x.shape[0]).unsqueeze(1)
    valid = (time < lens).unsqueeze(-1)
    mirror = torch.where(time < lens, lens - 1 - time, time).unsqueeze(-1)
    ahead, back = rnn_scan(x, None, *fwd)[0], _mirrored(rnn_scan(_mirrored(x, mirror), None, *bwd)[0], mirror)
    states, final = joined(lens, valid, ahead, back)
    return torch.cat([ahead, back], -1) * valid, final


@exercise.wrong(
    "The results are clean, but nan in the padding went through the layer, and its zero gradient times nan is nan: put "
    "zeros into x before the scan.",
    caught_by="gradients",
)
def padding_removed_too_late(x, valid_lens, fwd, bwd):
    lens = _valid_lengths(x, valid_lens)
    time = torch.arange(x.shape[0]).unsqueeze(1)
    mirror = torch.where(time < lens, lens - 1 - time, time).unsqueeze(-1)
    ahead, back = rnn_scan(x, None, *fwd)[0], _mirrored(rnn_scan(_mirrored(x, mirror), None, *bwd)[0], mirror)
    return joined(lens, (time < lens).unsqueeze(-1), ahead, back)


@exercise.wrong("States at padded positions must be exactly 0: the layer keeps running there, so mask its result.")
def result_not_masked(x, valid_lens, fwd, bwd):
    lens, valid, ahead, back, mirror = parts(x, valid_lens, fwd, bwd)
    back = _mirrored(back, mirror)
    return torch.cat([ahead, back], -1), joined(lens, valid, ahead, back)[1]


@exercise.wrong("The backward final state is the one after t = 0, at position 0, not at the last valid step.")
def backward_final_state_at_its_start(x, valid_lens, fwd, bwd):
    lens, valid, ahead, back, mirror = parts(x, valid_lens, fwd, bwd)
    both = torch.cat([ahead, _mirrored(back, mirror)], -1)
    last = both[lens - 1, torch.arange(x.shape[1])]
    return torch.where(valid, both, 0.0), torch.stack(last.chunk(2, -1))


@exercise.wrong("Forward comes first, then backward.")
def backward_first(x, valid_lens, fwd, bwd):
    states, final = bidirectional_rnn(x, valid_lens, fwd, bwd)
    hidden = final.shape[-1]
    return states.roll(hidden, -1), final.flip(0)


@exercise.wrong("The final states are (2, B, H), not (B, 2H).", caught_by="shape")
def final_states_side_by_side(x, valid_lens, fwd, bwd):
    states, final = bidirectional_rnn(x, valid_lens, fwd, bwd)
    return states, torch.cat([final[0], final[1]], -1)


@exercise.wrong("One run per sequence: mirror the whole batch with one gather.", caught_by="growth")
def loop_over_sequences(x, valid_lens, fwd, bwd):
    lens = _valid_lengths(x, valid_lens)
    states, finals = [], []
    for n, length in enumerate(lens.tolist()):
        row = x[:length, n : n + 1]
        ahead, last = rnn_scan(row, None, *fwd)
        back, first = rnn_scan(row.flip(0), None, *bwd)
        states.append(F.pad(torch.cat([ahead, back.flip(0)], -1), (0, 0, 0, 0, 0, x.shape[0] - length)))
        finals.append(torch.stack([last, first]))
    return torch.cat(states, 1), torch.cat(finals, 1)


@exercise.wrong("Lengths above T act as T: clamp them.", caught_by="runs")
def lengths_not_clamped(x, valid_lens, fwd, bwd):
    lens = _valid_lengths(x, valid_lens) if valid_lens is None else valid_lens
    if (lens < 1).any():
        raise ValueError
    time = torch.arange(x.shape[0]).unsqueeze(1)
    valid = (time < lens).unsqueeze(-1)
    mirror = torch.where(time < lens, lens - 1 - time, time).unsqueeze(-1)
    clean = torch.where(valid, x, 0.0)
    ahead = rnn_scan(clean, None, *fwd)[0]
    return joined(lens, valid, ahead, _mirrored(rnn_scan(_mirrored(clean, mirror), None, *bwd)[0], mirror))


@exercise.wrong("A length below 1 is an error: such a sequence has no final state.", caught_by="errors")
def lengths_not_checked(x, valid_lens, fwd, bwd):
    return bidirectional_rnn(x, valid_lens if valid_lens is None else valid_lens.clamp(min=1), fwd, bwd)


@exercise.wrong("valid_lens=None means that all steps are valid.", caught_by="runs")
def none_not_handled(x, valid_lens, fwd, bwd):
    return bidirectional_rnn(x, valid_lens.clamp(max=x.shape[0]), fwd, bwd)


@exercise.wrong("The mirror is one step off: step 0 changes places with step valid_len - 1.")
def mirror_off_by_one(x, valid_lens, fwd, bwd):
    lens, valid, ahead, _, _ = parts(x, valid_lens, fwd, bwd)
    time = torch.arange(x.shape[0]).unsqueeze(1)
    mirror = torch.where(time < lens, (lens - time) % x.shape[0], time).unsqueeze(-1)
    clean = torch.where(valid, x, 0.0)
    back = _mirrored(rnn_scan(_mirrored(clean, mirror), None, *bwd)[0], mirror)
    return joined(lens, valid, ahead, back)


@exercise.wrong("The valid steps are counted as t <= valid_len: with a length of n they are 0 ... n - 1.")
def one_step_too_many(x, valid_lens, fwd, bwd):
    _valid_lengths(x, valid_lens)
    return bidirectional_rnn(x, valid_lens if valid_lens is None else valid_lens + 1, fwd, bwd)


@exercise.wrong("valid_lens is ignored: every sequence is read to the end of its padding.")
def lengths_ignored(x, valid_lens, fwd, bwd):
    _valid_lengths(x, valid_lens)
    return bidirectional_rnn(x, None, fwd, bwd)


@exercise.wrong(
    "valid_lens only masks the result: the backward pass still begins in the padding, and the forward final state "
    "comes after it."
)
def lengths_for_the_mask_only(x, valid_lens, fwd, bwd):
    lens = _valid_lengths(x, valid_lens)
    states, final = bidirectional_rnn(x, None, fwd, bwd)
    return torch.where((torch.arange(len(x)).unsqueeze(1) < lens).unsqueeze(-1), states, 0.0), final


@exercise.wrong("The padding of the caller's x is overwritten with zeros: make a new tensor.", caught_by="inputs")
def padding_cleared_in_place(x, valid_lens, fwd, bwd):
    lens = _valid_lengths(x, valid_lens)
    with torch.no_grad():
        for t in range(x.shape[0]):
            x[t, t >= lens] = 0
    return bidirectional_rnn(x, valid_lens, fwd, bwd)


@exercise.wrong("clamp_() changes the caller's valid_lens: use clamp().", caught_by="inputs")
def lengths_clamped_in_place(x, valid_lens, fwd, bwd):
    _valid_lengths(x, valid_lens)
    return bidirectional_rnn(x, valid_lens if valid_lens is None else valid_lens.clamp_(max=x.shape[0]), fwd, bwd)


@exercise.wrong("float() throws away half of the digits of float64 inputs: compute in the dtype that comes in.")
def float32_inside(x, valid_lens, fwd, bwd):
    floats = [tuple(w.float() for w in direction) for direction in (fwd, bwd)]
    states, final = bidirectional_rnn(x.float(), valid_lens, *floats)
    return states.to(x.dtype), final.to(x.dtype)


@exercise.right("walks back through time and holds the state at zero until the sequence starts")
def held_at_zero(x, valid_lens, fwd, bwd):
    lens = _valid_lengths(x, valid_lens)
    steps, batch, _ = x.shape
    valid = (torch.arange(steps).view(-1, 1, 1) < lens.view(1, -1, 1)).expand(steps, batch, 1)
    x = x.masked_fill(~valid, 0.0)
    ahead, back = [], [None] * steps
    h = x.new_zeros(batch, fwd[1].shape[0])
    for t, step in enumerate(F.linear(x, fwd[0], fwd[2])):
        h = torch.where(valid[t], torch.addmm(step, h, fwd[1].T).tanh(), h)
        ahead.append(h)
    g, steps_back = x.new_zeros(batch, bwd[1].shape[0]), F.linear(x, bwd[0], bwd[2])
    for t in reversed(range(steps)):
        g = torch.where(valid[t], torch.addmm(steps_back[t], g, bwd[1].T).tanh(), 0.0)
        back[t] = g
    states = torch.cat([torch.stack(ahead), torch.stack(back)], -1)
    return states.masked_fill(~valid, 0.0), torch.stack([h, g])


@exercise.right("both directions in one scan of block-diagonal weights")
def one_scan(x, valid_lens, fwd, bwd):
    lens = _valid_lengths(x, valid_lens)
    time = torch.arange(x.shape[0]).unsqueeze(1)
    valid = (time < lens).unsqueeze(-1)
    turn = torch.where(time < lens, lens - 1 - time, time)
    columns = torch.arange(x.shape[1])
    x = torch.where(valid, x, torch.zeros_like(x))
    weights = [torch.block_diag(f, b) for f, b in zip(fwd[:2], bwd[:2], strict=True)]
    both, _ = rnn_scan(torch.cat([x, x[turn, columns]], -1), None, *weights, torch.cat([fwd[2], bwd[2]]))
    ahead, back = both.chunk(2, -1)
    states = torch.cat([ahead, back[turn, columns]], -1)
    finals = torch.stack([ahead[lens - 1, columns], back[lens - 1, columns]])
    return torch.where(valid, states, torch.zeros_like(states)), finals
