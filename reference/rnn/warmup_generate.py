"""Text from a recurrent model: warm up on a prefix, then generate."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from grader import Case, Exercise


def warmup_generate(
    step_fn: Callable[[Tensor, Any], tuple[Tensor, Any]], state: Any, prefix: Sequence[int], num_preds: int
) -> list[int]:
    """Feed the prefix token by token, then, `num_preds` times, append the most probable next token.

    Args:
        step_fn: `step_fn(ids, state)` takes one token, int64 `(1,)`, and the state after all tokens before it, and
            returns the logits of the next token, `(1, V)`, and the new state.
        state: the state before the first token, of any type; it is only handed on.
        prefix: the tokens to start with, at least one.
        num_preds: how many tokens to append.

    Returns:
        A new list of Python ints: the prefix and `num_preds` new tokens, each the argmax of the logits after all
        tokens before it (the lowest id among equals). `step_fn` is called with gradients disabled, exactly
        len(prefix) + num_preds - 1 times, or not at all if num_preds = 0.

    Raises:
        ValueError: the prefix is empty or num_preds < 0; checked before `step_fn` is called.

    Example:
        >>> def step_fn(ids, state):  # after token k comes token k + 1, of 5 tokens
        ...     return torch.eye(5)[(ids + 1) % 5], state + 1
        >>> warmup_generate(step_fn, 0, [1, 3], 3)
        [1, 3, 4, 0, 1]
    """
    ids = list(prefix)
    if not ids or num_preds < 0:
        raise ValueError(f"the prefix must have tokens and num_preds be >= 0, got {len(ids)} and {num_preds}")
    if num_preds == 0:
        return ids
    with torch.no_grad():
        for token in ids[:-1]:
            _, state = step_fn(torch.tensor([token]), state)
        for _ in range(num_preds):
            logits, state = step_fn(torch.tensor([ids[-1]]), state)
            ids.append(int(logits.argmax(-1)))
    return ids


exercise = Exercise(
    warmup_generate,
    points=5,
    extra=True,
    hints=(
        "How many tokens has the model read when the first prediction is made? How many must it read after the "
        "last prediction?",
        "Feed prefix[:-1] and keep only the state. Then num_preds times: feed the last token of the list, append the "
        "argmax of the logits.",
        "with torch.no_grad(): for token in ids[:-1]: _, state = step_fn(torch.tensor([token]), state); then "
        "num_preds times logits, state = step_fn(torch.tensor([ids[-1]]), state); "
        "ids.append(int(logits.argmax(-1))). If num_preds is 0, nothing is called at all.",
    ),
    source="D2L recurrent-neural-networks/rnn-scratch",
)


@exercise.truth
def truth(step_fn, state, prefix, num_preds):
    if len(prefix) == 0 or num_preds < 0:
        raise ValueError
    result = [*prefix]
    calls = len(prefix) + num_preds - 1 if num_preds else 0
    for position in range(calls):
        with torch.no_grad():
            logits, state = step_fn(torch.tensor([result[position]]), state)
        if position >= len(prefix) - 1:
            row = logits[0].tolist()
            result.append(row.index(max(row)))
    return result


@exercise.probe
def drive(candidate, table, prefix, num_preds, kind="tuple"):
    """Run the candidate on an automaton that logs what it is fed; `kind` is the type of its state."""
    table = table.clone().requires_grad_()
    fed, states, shapes, graphs = [], [], [], []

    def step_fn(ids, state):
        at = state if kind == "number" else state["at"] if kind == "dict" else None if state is None else int(state[0])
        at = 0 if at is None else at
        shapes.append([list(ids.shape), str(ids.dtype)])
        fed.append(ids.tolist())
        states.append(at)
        logits = table[at].index_select(0, ids.flatten()[-1:])
        graphs.append(logits.requires_grad)
        new = (3 * at + int(ids.flatten()[-1]) + 1) % len(table)
        made = {"number": new, "dict": {"at": new}, "tensor": torch.tensor([new])}
        return logits, made.get(kind, (new, "hidden"))

    first = {"number": 2, "dict": {"at": 2}, "tensor": torch.tensor([2]), "none": None}.get(kind, (2, "hidden"))
    given = tuple(prefix) if kind == "none" else list(prefix)
    kept = list(given)
    result = candidate(step_fn, first, given, num_preds)
    return {
        "tokens": result,
        "fed": fed,
        "states": states,
        "shapes": shapes,
        "steps with a graph": sum(graphs),
        "the prefix is unchanged": list(given) == kept,
        "the list is new": result is not given,
        "gradients are enabled again": torch.is_grad_enabled(),
    }


def refused(candidate, table, prefix, num_preds):
    """Report whether step_fn was called before the exception."""
    calls, raised = [], False

    def step_fn(ids, state):
        calls.append(1)
        return table[0][:1], state

    try:
        candidate(step_fn, 0, prefix, num_preds)
    except ValueError:
        raised = True
    return {"raises ValueError": raised, "calls of step_fn": len(calls)}


@exercise.cases
def cases(draw):
    yield Case("four tokens, then five more", draw.normal(6, 7, 7), [3, 1, 6, 2], 5)
    yield Case("a prefix of one token", draw.normal(5, 4, 4), [2], 4)
    yield Case("one new token", draw.normal(4, 6, 6), [5, 0, 4], 1, kind="number")
    yield Case("num_preds = 0", draw.normal(3, 5, 5), [4, 4, 1], 0, edge=True)
    yield Case("equal logits: the lowest id", draw.integers(0, 2, 5, 6, 6).float(), [1, 5], 8, edge=True)
    yield Case("the state is a dict", draw.normal(4, 5, 5), [0, 3, 3], 3, kind="dict")
    yield Case("the state is a tensor", draw.normal(5, 6, 6), [5, 0, 2, 2, 1], 2, kind="tensor")
    yield Case("a tuple as prefix, None as state", draw.normal(4, 5, 5), [2, 0, 1], 4, kind="none", edge=True)
    yield Case("a long prefix", draw.normal(7, 9, 9), draw.integers(0, 9, 20).tolist(), 3, hidden=True)
    yield Case("many new tokens", draw.normal(7, 5, 5), [4, 1], 25, hidden=True)
    yield Case("one token, one more", draw.normal(3, 8, 8), [7], 1, edge=True, hidden=True)
    yield Case("negative logits", draw.normal(5, 4, 4) - 50.0, [3, 0], 6, hidden=True)
    yield Case("an empty prefix", draw.normal(3, 5, 5), [], 3, raises=ValueError)
    yield Case("an empty prefix, num_preds = 0", draw.normal(3, 5, 5), [], 0, raises=ValueError, hidden=True)
    yield Case("num_preds = -1", draw.normal(3, 5, 5), [1, 2], -1, raises=ValueError)
    yield Case("no call before the exception", draw.normal(3, 5, 5), [1, 2, 0], -2, probe=refused, edge=True)


def checked(prefix, num_preds):
    """Raise as the solution does."""
    if len(prefix) == 0 or num_preds < 0:
        raise ValueError


def generate(step_fn, state, prefix, num_preds, *, choose=lambda logits: int(logits.argmax(-1)), feed=torch.tensor):
    """Do what the solution does, with one thing done differently."""
    checked(prefix, num_preds)
    ids = list(prefix)
    with torch.no_grad():
        for token in ids[:-1] if num_preds else []:
            _, state = step_fn(feed([token]), state)
        for _ in range(num_preds):
            logits, state = step_fn(feed([ids[-1]]), state)
            ids.append(choose(logits))
    return ids


@exercise.wrong("Warm-up listens, it does not speak: feed the prefix's own tokens and ignore the logits.")
def prefix_overwritten(step_fn, state, prefix, num_preds):
    checked(prefix, num_preds)
    ids = [prefix[0]]
    with torch.no_grad():
        for _ in range(len(prefix) + num_preds - 1 if num_preds else 0):
            logits, state = step_fn(torch.tensor([ids[-1]]), state)
            ids.append(int(logits.argmax(-1)))
    return ids if num_preds else list(prefix)


@exercise.wrong(
    "The last token of the prefix is fed twice: the logits of its first feeding are already the first prediction."
)
def last_token_twice(step_fn, state, prefix, num_preds):
    checked(prefix, num_preds)
    ids = list(prefix)
    with torch.no_grad():
        for token in ids if num_preds else []:
            _, state = step_fn(torch.tensor([token]), state)
        for _ in range(num_preds):
            logits, state = step_fn(torch.tensor([ids[-1]]), state)
            ids.append(int(logits.argmax(-1)))
    return ids


@exercise.wrong("The new state is thrown away: a model that starts afresh at each token remembers nothing.")
def state_thrown_away(step_fn, state, prefix, num_preds):
    return generate(lambda ids, _: step_fn(ids, state), state, prefix, num_preds)


@exercise.wrong(
    "The model has read the last token of the prefix only: feed it all the tokens before, to warm up the state."
)
def not_warmed_up(step_fn, state, prefix, num_preds):
    checked(prefix, num_preds)
    return [*prefix[:-1], *warmup_generate(step_fn, state, list(prefix[-1:]), num_preds)]


@exercise.wrong("The state already contains what was read: feed only the newest token, not the history again.")
def history_fed_again(step_fn, state, prefix, num_preds):
    checked(prefix, num_preds)
    ids = list(prefix)
    with torch.no_grad():
        for _ in range(num_preds):
            for token in ids:
                logits, state = step_fn(torch.tensor([token]), state)
            ids.append(int(logits.argmax(-1)))
    return ids


@exercise.wrong("Decode under torch.no_grad(): otherwise the graph of all steps is kept.")
def graph_kept(step_fn, state, prefix, num_preds):
    checked(prefix, num_preds)
    ids = list(prefix)
    for token in ids[:-1] if num_preds else []:
        _, state = step_fn(torch.tensor([token]), state)
    for _ in range(num_preds):
        logits, state = step_fn(torch.tensor([ids[-1]]), state)
        ids.append(int(logits.argmax(-1)))
    return ids


@exercise.wrong("Gradients are disabled after the warm-up only: the prefix's graph is built too.")
def graph_of_the_warm_up(step_fn, state, prefix, num_preds):
    checked(prefix, num_preds)
    ids = list(prefix)
    for token in ids[:-1] if num_preds else []:
        _, state = step_fn(torch.tensor([token]), state)
    return ids[:-1] + generate(step_fn, state, ids[-1:], num_preds)


@exercise.wrong("Among equal logits the lowest id wins, as torch.argmax has it.")
def highest_of_equals(step_fn, state, prefix, num_preds):
    def choose(logits):
        return logits.shape[-1] - 1 - int(logits.flip(-1).argmax(-1))

    return generate(step_fn, state, prefix, num_preds, choose=choose)


@exercise.wrong("The prefix belongs to the result: return it together with the new tokens.", caught_by="structure")
def new_tokens_only(step_fn, state, prefix, num_preds):
    return generate(step_fn, state, prefix, num_preds)[len(prefix) :]


@exercise.wrong("The caller's list grows: append to a copy of the prefix.")
def prefix_extended(step_fn, state, prefix, num_preds):
    new = generate(step_fn, state, prefix, num_preds)[len(prefix) :]
    if isinstance(prefix, list):
        prefix += new
        return list(prefix)
    return list(prefix) + new


@exercise.wrong("The tokens are Python ints, not tensors: int(logits.argmax(-1)).", caught_by="type")
def tokens_as_tensors(step_fn, state, prefix, num_preds):
    ids = generate(step_fn, state, prefix, num_preds)
    return ids[: len(prefix)] + [torch.tensor(token) for token in ids[len(prefix) :]]


@exercise.wrong("The last prediction need not be fed: nobody looks at what comes after it.")
def one_call_too_many(step_fn, state, prefix, num_preds):
    checked(prefix, num_preds)
    ids, logits = list(prefix), None
    with torch.no_grad():
        for token in ids if num_preds else []:
            logits, state = step_fn(torch.tensor([token]), state)
        for _ in range(num_preds):
            ids.append(int(logits.argmax(-1)))
            logits, state = step_fn(torch.tensor([ids[-1]]), state)
    return ids


@exercise.wrong("With num_preds = 0 there is nothing to predict: do not call step_fn at all.")
def warmed_up_for_nothing(step_fn, state, prefix, num_preds):
    checked(prefix, num_preds)
    if num_preds == 0:
        generate(step_fn, state, prefix, 1)
    return generate(step_fn, state, prefix, num_preds)


@exercise.wrong("An empty prefix and a negative num_preds are ValueErrors.", caught_by="errors")
def nothing_checked(step_fn, state, prefix, num_preds):
    return generate(step_fn, state, prefix, max(num_preds, 0)) if prefix else []


@exercise.wrong("The check of num_preds comes after the warm-up: check first, then act.")
def checked_too_late(step_fn, state, prefix, num_preds):
    checked(prefix, 0)
    if num_preds < 0:
        generate(step_fn, state, prefix, 1)
    return generate(step_fn, state, prefix, num_preds)


@exercise.wrong(
    "set_grad_enabled(False) stays in force after the call: use `with torch.no_grad():`.", caught_by="state"
)
def gradients_left_disabled(step_fn, state, prefix, num_preds):
    checked(prefix, num_preds)
    torch.set_grad_enabled(False)
    return generate(step_fn, state, prefix, num_preds)


@exercise.wrong("step_fn takes ids of shape (1,), a batch of one token, not a 0-d tensor.")
def ids_without_a_batch(step_fn, state, prefix, num_preds):
    return generate(step_fn, state, prefix, num_preds, feed=lambda ids: torch.tensor(ids[0]))


@exercise.wrong("step_fn takes one token at a time, (1,): the prefix cannot be fed in one piece.")
def prefix_in_one_piece(step_fn, state, prefix, num_preds):
    checked(prefix, num_preds)
    ids = list(prefix)
    with torch.no_grad():
        for step in range(num_preds):
            logits, state = step_fn(torch.tensor(ids if step == 0 else ids[-1:]), state)
            ids.append(int(logits.argmax(-1)))
    return ids


@exercise.wrong("Take the most probable token; a random draw is another decoder.")
def sampled(step_fn, state, prefix, num_preds):
    def choose(logits):
        return int(torch.multinomial(logits.softmax(-1), 1))

    return generate(step_fn, state, prefix, num_preds, choose=choose)


@exercise.wrong("The list that comes back is the caller's own: return a new one.")
def same_list_returned(step_fn, state, prefix, num_preds):
    ids = generate(step_fn, state, prefix, num_preds)
    return ids if num_preds or not isinstance(prefix, list) else prefix


@exercise.wrong("num_preds counts the new tokens, not the length of the whole text.", caught_by="structure")
def counts_the_prefix(step_fn, state, prefix, num_preds):
    checked(prefix, num_preds)
    return generate(step_fn, state, prefix, max(num_preds - len(prefix), 0))


@exercise.right("one loop over all positions")
def one_loop(step_fn, state, prefix, num_preds):
    return truth(step_fn, state, prefix, num_preds)


@exercise.right("a generator under inference_mode")
def by_generator(step_fn, state, prefix, num_preds):
    checked(prefix, num_preds)

    def tokens(state):
        *head, token = prefix
        for old in head:
            state = step_fn(torch.as_tensor((old,)), state)[1]
        for _ in range(num_preds):
            logits, state = step_fn(torch.as_tensor((token,)), state)
            token = logits.squeeze(0).max(0).indices.item()
            yield token

    with torch.inference_mode():
        return [*prefix, *(tokens(state) if num_preds else ())]
