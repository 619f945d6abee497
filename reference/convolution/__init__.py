"""Convolution: what a small shared kernel computes, how far it sees, and how to make it fast."""

TITLE = "Convolution"
EXERCISES = ("conv_geometry", "corr2d", "im2col", "conv2d", "conv1x1", "conv2d_backward", "conv_as_linear")
CONVOLUTIONS = ("conv*", "Conv*", "F.unfold", "torch.fft")
"""torch's own convolutions and the ways around them; `Tensor.unfold` is a view and stays allowed."""

FORBID = (*CONVOLUTIONS, "fold")

_UNPACKED = "unpacking a shape of another length raises ValueError too"
_STRICT = "both sides always have the same length"
_AXES = "conv_as_linear: down, across = (meets(*axis) for axis in zip((kh, kw), _pair(stride), _pair(padding), in_size"
EQUIVALENT = {
    "conv_geometry: if min(stride, kernel, dilation) < 1 or padding < 0:": "min does not care for the order",
    "corr2d: if False:": _UNPACKED,
    "corr2d: if X.ndim != 2 and K.ndim != 2:": _UNPACKED,
    "im2col: if False:": _UNPACKED,
    "im2col: if True:": "padding by nothing is a copy, and the budget has room for a padded copy",
    "conv2d: if False:": _UNPACKED,
    "conv2d: if X.ndim != 4 and weight.ndim != 4:": _UNPACKED,
    "conv1x1: Y = torch.einsum('oc,nchw->nohw', weight[:, :, -1, 0], X)": "weight is checked to be 1 x 1",
    "conv1x1: Y = torch.einsum('oc,nchw->nohw', weight[:, :, 0, -1], X)": "weight is checked to be 1 x 1",
    "conv2d_backward: padded = X.new_zeros(N, C, H + 3 * ph, W + 2 * pw)": "added zeros are cropped away",
    "conv2d_backward: padded = X.new_zeros(N, C, H + 2 * ph, W + 3 * pw)": "added zeros are cropped away",
    "conv_as_linear: if False:": _UNPACKED,
    "conv_as_linear: cell, window, pixel = (torch.arange(m) for m in (k, size, n))": "other devices only",
    f"{_AXES}))": _STRICT,
    f"{_AXES}, strict=False))": _STRICT,
}
"""Mutants of the solutions that do the same, and why."""
