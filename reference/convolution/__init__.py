"""Convolution: what a small shared kernel computes, how far it sees, and how to make it fast."""

TITLE = "Convolution"
EXERCISES = ("conv_geometry", "corr2d", "im2col", "conv2d", "conv1x1", "conv2d_backward", "conv_as_linear")
CONVOLUTIONS = ("conv*", "Conv*", "F.unfold", "torch.fft")
"""torch's own convolutions and the ways around them; `Tensor.unfold` is a view and stays allowed."""

FORBID = (*CONVOLUTIONS, "fold")
