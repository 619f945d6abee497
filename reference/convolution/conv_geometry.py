"""The geometry of a stack of layers: output size, receptive field, jump."""

from collections.abc import Sequence

import torch

from grader import Case, Cost, Exercise


def conv_geometry(layers: Sequence[tuple[int, int, int, int]], size: int) -> tuple[int, int, int]:
    """Work out, along one axis, what a stack of convolution and pooling layers makes of an image.

    Args:
        layers: (kernel, stride, padding, dilation) per layer, in pixels, from the image upwards; pooling counts
            as a layer. Padding is added on both sides. May be empty.
        size: number of pixels of the image along the axis.

    Returns:
        Three Python ints:
        the output size: each layer turns n pixels into floor((n + 2p - d(k - 1) - 1) / s) + 1;
        the receptive field: how many pixels of the image, first to last, one output depends on. It starts at 1,
        does not depend on the padding and is not cut off at the image's border;
        the jump: how many pixels apart on the image the windows of two neighbouring outputs start. It starts at 1.
        Without layers (size, 1, 1). Exact for sizes of any magnitude.

    Raises:
        ValueError: `size`, or a layer's kernel, stride or dilation, is below 1; a padding is negative; or a
            layer, be it in the middle, has no output (a size below 1).

    Example:
        >>> conv_geometry([(5, 1, 2, 1), (2, 2, 0, 1)], 28)  # a 5-wide convolution, then 2-wide pooling
        (14, 6, 2)
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    field, jump = 1, 1
    for kernel, stride, padding, dilation in layers:
        if min(kernel, stride, dilation) < 1 or padding < 0:
            raise ValueError(f"not a layer: {(kernel, stride, padding, dilation)}")
        size = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        if size < 1:
            raise ValueError("a layer has no output")
        field += (kernel - 1) * dilation * jump
        jump *= stride
    return size, field, jump


exercise = Exercise(
    conv_geometry,
    points=5,
    cost=Cost(ops=0),
    forbid=("any torch function",),
    hints=(
        "Follow one layer at a time and keep three numbers: the size, the field and the jump.",
        "A kernel of k cells reaches over k - 1 gaps. How wide is one gap, counted in pixels of the image?",
        "Per layer: size = (size + 2p - d(k - 1) - 1) // s + 1, then field += (k - 1) * d * jump, then jump *= s.",
    ),
    source="D2L convolutional-neural-networks/padding-and-strides, lenet; convolutional-modern/vgg",
)


@exercise.truth
def truth(layers, size):
    """Count the windows one by one (as ranges), and follow the pixels that two neighbouring outputs see."""
    for k, s, p, d in layers:
        size = len(range(-p, size + p - d * (k - 1), s))
    first, second = {0}, {1}
    for k, s, p, d in reversed(layers):
        first = {i * s + a * d - p for i in (min(first), max(first)) for a in range(k)}
        second = {i * s + a * d - p for i in (min(second), max(second)) for a in range(k)}
    return size, max(first) - min(first) + 1, min(second) - min(first)


LENET = [(5, 1, 2, 1), (2, 2, 0, 1), (5, 1, 0, 1), (2, 2, 0, 1)]
ALEXNET = [(11, 4, 1, 1), (3, 2, 0, 1), (5, 1, 2, 1), (3, 2, 0, 1), *[(3, 1, 1, 1)] * 3, (3, 2, 0, 1)]
VGG16 = [layer for n in (2, 2, 3, 3, 3) for layer in [*[(3, 1, 1, 1)] * n, (2, 2, 0, 1)]]


@exercise.cases
def cases(draw):
    yield Case("LeNet on 28 pixels", LENET, 28)
    yield Case("AlexNet on 224 pixels", ALEXNET, 224)
    yield Case("VGG-16 on 224 pixels", VGG16, 224)
    yield Case("dilation 2", [(3, 1, 0, 2), (3, 1, 0, 1)], 17)
    yield Case("dilation and stride", [(3, 2, 1, 1), (4, 3, 2, 3)], 51)
    yield Case("1-wide kernels", [(1, 1, 0, 1), (1, 2, 0, 1), (1, 1, 0, 1)], 9)
    yield Case("stride larger than the kernel", [(2, 5, 0, 1), (3, 1, 0, 1)], 24)
    yield Case("pixels are left over", [(3, 2, 0, 1), (2, 2, 0, 1)], 14)
    yield Case("a field wider than the image", [(3, 1, 1, 1)] * 4, 5)
    yield Case("no layers", [], 11, edge=True)
    yield Case("2**60 + 1 pixels", [(1, 1, 0, 1), (3, 2, 0, 1)], 2**60 + 1, edge=True)
    for number in range(3):
        k, s, p, d = (draw.integers(low, high, 3).tolist() for low, high in ((1, 6), (1, 4), (0, 4), (1, 4)))
        stack = [*zip(k, s, p, d, strict=True), (3, 2, 1, 2)]
        size = int(draw.integers(150, 260))
        yield Case(f"a random stack, number {number + 1}", stack, size, hidden=True)
    yield Case("a single pixel", [(3, 2, 1, 1)], 1, edge=True, hidden=True)
    yield Case(
        "more than 2**59 pixels, stride 3", [(5, 3, 1, 2)], 2**59 + int(draw.integers(0, 99)), edge=True, hidden=True
    )
    yield Case("kernel larger than the image", [(5, 1, 0, 1)], 4, raises=ValueError)
    yield Case("kernel much larger than the image", [(7, 1, 0, 1)], 3, raises=ValueError)
    yield Case("kernel larger than the padded image", [(7, 1, 2, 1)], 2, raises=ValueError)
    yield Case("kernel larger than the image, stride 2", [(3, 2, 0, 1)], 2, raises=ValueError)
    yield Case("dilated kernel larger than the image", [(3, 1, 0, 3)], 6, raises=ValueError)
    yield Case("a layer in the middle has no output", [(4, 1, 0, 1), (3, 1, 2, 1)], 3, raises=ValueError)
    yield Case("stride 0", [(3, 1, 0, 1), (2, 0, 0, 1)], 8, raises=ValueError)
    yield Case("kernel 0", [(0, 1, 0, 1)], 8, raises=ValueError)
    yield Case("dilation 0", [(3, 1, 0, 0)], 8, raises=ValueError)
    yield Case("negative kernel", [(-1, 1, 0, 1)], 8, raises=ValueError)
    yield Case("negative padding", [(3, 1, -1, 1)], 8, raises=ValueError)
    yield Case("no pixels", [(1, 1, 0, 1)], 0, raises=ValueError)
    yield Case("no pixels and no layers", [], 0, raises=ValueError)
    yield Case("no pixels but padding", [(2, 1, 1, 1)], 0, raises=ValueError, hidden=True)
    yield Case("negative stride", [(3, -1, 0, 1)], 8, raises=ValueError, hidden=True)
    yield Case("negative dilation", [(3, 1, 0, 1), (2, 1, 0, -1)], 8, raises=ValueError, hidden=True)


def size_rule(n, k, s, p, d):
    return (n + 2 * p - d * (k - 1) - 1) // s + 1


def field_rule(r, j, k, s, p, d):
    return r + (k - 1) * d * j


def jump_rule(j, k, s, p, d):
    return j * s


def walk(layers, size, *, new_size=size_rule, new_field=field_rule, new_jump=jump_rule, jump_first=False):
    """Do what the solution does, with one of its three rules exchanged."""
    if size < 1:
        raise ValueError
    r, j = 1, 1
    for k, s, p, d in layers:
        if k < 1 or s < 1 or d < 1 or p < 0:
            raise ValueError
        size = new_size(size, k, s, p, d)
        if size < 1:
            raise ValueError
        if jump_first:
            j = new_jump(j, k, s, p, d)
        r = new_field(r, j, k, s, p, d)
        if not jump_first:
            j = new_jump(j, k, s, p, d)
    return size, r, j


@exercise.wrong("An incomplete window gives no output: round the number of steps down (//), not up.")
def rounds_up(layers, size):
    return walk(layers, size, new_size=lambda n, k, s, p, d: -(-(n + 2 * p - d * (k - 1) - 1) // s) + 1)


@exercise.wrong("`/` makes floats, even where the result is whole. Sizes are integers: use //.", caught_by="type")
def true_division(layers, size):
    return walk(layers, size, new_size=lambda n, k, s, p, d: (n + 2 * p - d * (k - 1) - 1) / s // 1 + 1)


@exercise.wrong("int(a / s) goes through a float, which has 53 bits and rounds -1/2 to 0, not down to -1. Use a // s.")
def through_a_float(layers, size):
    return walk(layers, size, new_size=lambda n, k, s, p, d: int((n + 2 * p - d * (k - 1) - 1) / s) + 1)


@exercise.wrong("Padding is added on both sides: it counts twice.")
def padding_once(layers, size):
    return walk(layers, size, new_size=lambda n, k, s, p, d: size_rule(n + p, k, s, 0, d))


@exercise.wrong("The formula counts the steps of the window; its first place counts too: + 1.")
def forgets_the_first_window(layers, size):
    return walk(layers, size, new_size=lambda n, k, s, p, d: size_rule(n, k, s, p, d) - 1 or 1)


@exercise.wrong("After a stride-2 layer one step covers two pixels of the image: multiply k - 1 by the jump.")
def no_jump_in_the_field(layers, size):
    return walk(layers, size, new_field=lambda r, _j, k, _s, _p, d: r + (k - 1) * d)


@exercise.wrong(
    "A layer's own stride moves its windows, not the cells inside one: multiply the jump after the field grew."
)
def own_stride_in_the_field(layers, size):
    return walk(layers, size, jump_first=True)


@exercise.wrong("Zeros are not information: padding changes the size but not how far one output sees.")
def padding_enlarges_the_field(layers, size):
    return walk(layers, size, new_field=lambda r, j, k, _s, p, d: r + ((k - 1) * d + 2 * p) * j)


@exercise.wrong("The field is not cut off at the border: it may be wider than the image.")
def clipped_field(layers, size):
    n, r, j = conv_geometry(layers, size)
    return n, min(r, size), j


@exercise.wrong("A dilated kernel spans d(k - 1) + 1 pixels: the field must grow by jump * d(k - 1).")
def dilation_not_in_the_field(layers, size):
    return walk(layers, size, new_field=lambda r, j, k, _s, _p, _d: r + (k - 1) * j)


@exercise.wrong("A dilated kernel needs d(k - 1) + 1 pixels: fewer windows fit than for k.")
def dilation_not_in_the_size(layers, size):
    return walk(layers, size, new_size=lambda n, k, s, p, _d: size_rule(n, k, s, p, 1))


@exercise.wrong("A kernel spans d(k - 1) + 1 pixels, not d * k: there is no gap after its last cell.")
def span_of_d_times_k(layers, size):
    return walk(
        layers,
        size,
        new_size=lambda n, k, s, p, d: (n + 2 * p - d * k) // s + 1,
        new_field=lambda r, j, k, _s, _p, d: r + (d * k - 1) * j,
    )


@exercise.wrong(
    "The field grows by the k - 1 gaps between the kernel's cells: k cells in the first layer see k pixels."
)
def field_grows_by_k(layers, size):
    return walk(layers, size, new_field=lambda r, j, k, _s, _p, d: r + k * d * j)


@exercise.wrong(
    "Strides multiply: strides of 2 and 3 make a step of 6 pixels, and three of 2 one of 8. They do not add up."
)
def strides_add_up(layers, size):
    return walk(layers, size, new_jump=lambda j, _k, s, _p, _d: j + s - 1)


@exercise.wrong("The jump is the product of all strides, not the stride of the last layer.")
def last_stride_only(layers, size):
    return walk(layers, size, new_jump=lambda _j, _k, s, _p, _d: s)


@exercise.wrong(
    "Image size over output size is not the jump: borders and left-over pixels spoil it. Multiply the strides."
)
def jump_from_the_sizes(layers, size):
    n, r, _ = conv_geometry(layers, size)
    return n, r, size // n


@exercise.wrong(
    "Check after every layer: padding can hide that a layer in the middle had no output.", caught_by="errors"
)
def checks_the_end_only(layers, size):
    if size < 1 or any(k < 1 or s < 1 or p < 0 or d < 1 for k, s, p, d in layers):
        raise ValueError
    n, r, j = size, 1, 1
    for layer in layers:
        n, r, j = size_rule(n, *layer), field_rule(r, j, *layer), jump_rule(j, *layer)
    if n < 1:
        raise ValueError
    return n, r, j


@exercise.wrong(
    "A kernel, stride or dilation below 1, or a padding below 0, is no layer: ValueError.", caught_by="errors"
)
def layers_unchecked(layers, size):
    if size < 1:
        raise ValueError
    r, j = 1, 1
    for layer in layers:
        size, r, j = size_rule(size, *layer), field_rule(r, j, *layer), jump_rule(j, *layer)
        if size < 1:
            raise ValueError
    return size, r, j


@exercise.wrong("An image without pixels is no image: check `size` before the first layer.", caught_by="errors")
def image_unchecked(layers, size):
    if size < 1 and all(k >= 1 and s >= 1 and p >= 0 and d >= 1 for k, s, p, d in layers):
        n, r, j = size, 1, 1
        for layer in layers:
            n, r, j = size_rule(n, *layer), field_rule(r, j, *layer), jump_rule(j, *layer)
        if layers and n < 1:
            raise ValueError
        return n, r, j
    return conv_geometry(layers, size)


@exercise.wrong(
    "A kernel much too large makes the size negative, not just 0: refuse everything below 1.", caught_by="errors"
)
def refuses_zero_only(layers, size):
    if size < 1:
        raise ValueError
    r, j = 1, 1
    for k, s, p, d in layers:
        if k < 1 or s < 1 or d < 1 or p < 0:
            raise ValueError
        size, r, j = size_rule(size, k, s, p, d), field_rule(r, j, k, s, p, d), jump_rule(j, k, s, p, d)
        if size == 0:
            raise ValueError
    return size, r, j


@exercise.wrong(
    "Below 1 means negative numbers, too: `if 0 in layer` or `if not kernel` lets -1 pass.", caught_by="errors"
)
def tests_for_zero(layers, size):
    if any(0 in (k, s, d) or p < 0 for k, s, p, d in layers):
        raise ValueError
    if size < 1:
        raise ValueError
    r, j = 1, 1
    for layer in layers:
        size, r, j = size_rule(size, *layer), field_rule(r, j, *layer), jump_rule(j, *layer)
        if size < 1:
            raise ValueError
    return size, r, j


@exercise.wrong("`layers` belongs to the caller: pop() empties the list. Loop over it instead.", caught_by="inputs")
def empties_the_list(layers, size):
    n, r, j = conv_geometry(layers, size)
    while layers:
        layers.pop(0)
    return n, r, j


@exercise.wrong("A layer is (kernel, stride, padding, dilation), in this order, as in torch.")
def padding_before_stride(layers, size):
    return conv_geometry([(k, p, s, d) for k, s, p, d in layers], size)


@exercise.wrong("The contract promises a ValueError; assert raises an AssertionError.", caught_by="errors")
def asserts(layers, size):
    try:
        return conv_geometry(layers, size)
    except ValueError:
        raise AssertionError from None


@exercise.wrong("No tensors are needed: Python's integers are exact and free.", caught_by="forbidden")
def with_tensors(layers, size):
    n, r, j = conv_geometry(layers, size)
    return int(torch.tensor([n, 0]).sum()), r, j


@exercise.wrong("Without layers one output is one pixel: start with a field of 1 and a jump of 1.")
def field_starts_at_zero(layers, size):
    n, r, j = conv_geometry(layers, size)
    return n, r - 1, j


@exercise.right("backwards: from one output down to the image")
def backwards(layers, size):
    sizes = [size]
    for k, s, p, d in layers:
        if sizes[-1] < 1 or k < 1 or s < 1 or d < 1 or p < 0:
            raise ValueError("not a layer")
        sizes.append((sizes[-1] + 2 * p - (d * (k - 1) + 1)) // s + 1)
    if sizes[-1] < 1:
        raise ValueError("no output")
    field, jump = 1, 1
    for k, s, _, d in reversed(layers):
        field = (field - 1) * s + d * (k - 1) + 1
        jump *= s
    return sizes[-1], field, jump


@exercise.right("recursively, the last layer on top of the others")
def recursive(layers, size):
    if not layers:
        if size < 1:
            raise ValueError("no pixels")
        return size, 1, 1
    n, field, jump = recursive(layers[:-1], size)
    k, s, p, d = layers[-1]
    if min(k, s, d, p + 1) < 1:
        raise ValueError("not a layer")
    span = d * (k - 1) + 1
    if n + 2 * p < span:
        raise ValueError("no output")
    return (n + 2 * p - span + s) // s, field + (span - 1) * jump, jump * s
