"""Pooling and LeNet: smaller feature maps, and the first convolutional network."""

TITLE = "Pooling and LeNet"
EXERCISES = ("pool2d", "adaptive_avg_pool2d", "lenet", "train_convnet", "evaluate_convnet")

_STRICT = "both sides always have the same length"
_DEVICE = "other devices only"
EQUIVALENT = {
    "pool2d: height, width = ((n - k) // s + 1 for n, k, s in zip(X.shape[2:], kernel, step))": _STRICT,
    "pool2d: height, width = ((n - k) // s + 1 for n, k, s in zip(X.shape[2:], kernel, step, strict=False))": _STRICT,
    "pool2d: if any((2 * p > k or n + 2 * p < k for n, k, p in zip(X.shape[2:], kernel, pad))):": _STRICT,
    "pool2d: if any((2 * p > k or n + 2 * p < k for n, k, p in zip(X.shape[2:], kernel, pad, strict=False))):": _STRICT,
    "pool2d: merged = view if merged is None else merge(merged, view)": "F.pad copies X even if it adds nothing",
    "pool2d: merged = view.clone() if merged is None else merge(view, merged)": "maximum and add have no order",
    "adaptive_avg_pool2d: rows, columns = (_bins(n, m, X) for n, m in zip(X.shape[2:], size))": _STRICT,
    "adaptive_avg_pool2d: rows, columns = (_bins(n, m, X) for n, m in zip(X.shape[2:], size, strict=False))": _STRICT,
    "adaptive_avg_pool2d: position = torch.arange(n)": _DEVICE,
    "adaptive_avg_pool2d: i = torch.arange(m)[:, None]": _DEVICE,
    "train_convnet: for batch in torch.randperm(n, generator=generator).split(batch_size):": _DEVICE,
    "train_convnet: for parameter, gradient in zip(parameters, gradients):": _STRICT,
    "train_convnet: for parameter, gradient in zip(parameters, gradients, strict=False):": _STRICT,
    "evaluate_convnet: hits = torch.zeros((), device=X.device)": "float32 counts exactly up to 2**24 images",
    "evaluate_convnet: hits = torch.zeros((), dtype=torch.int64)": _DEVICE,
    "evaluate_convnet: for images, labels in zip(X.split(batch_size), y.split(batch_size)):": _STRICT,
    "evaluate_convnet: for images, labels in zip(X.split(batch_size), y.split(batch_size), strict=False):": _STRICT,
}
"""Mutants of the solutions that do the same, and why."""
