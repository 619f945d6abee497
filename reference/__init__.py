"""The course: units in teaching order."""

TITLE = "torch-dojo"
UNITS = (
    "softmax_regression",
    "regularization",
    "convolution",
    "pooling_lenet",
    "normalization",
    "rnn",
    "attention",
    "transformer",
)
