"""Which torch names a forbidden word stands for, whatever the spelling."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache

FAMILIES = {
    "softmax": ("softmax", "safe_softmax", "masked_softmax", "sparse_softmax", "softmax_backward_data"),
    "log_softmax": ("log_softmax", "sparse_log_softmax", "log_softmax_backward_data"),
    "conv*": (
        "conv*",
        "slow_conv*",
        "thnn_conv*",
        "mkldnn_convolution*",
        "cudnn_convolution*",
        "nnpack_spatial_convolution",
    ),
    "one_hot": ("one_hot",),
    "dropout*": ("dropout*", "native_dropout", "fused_dropout", "feature_dropout", "alpha_dropout"),
    "rnn*": ("rnn*", "mkldnn_rnn_layer*", "thnn_fused_*"),
    "lstm*": ("lstm*", "mkldnn_rnn_layer*", "thnn_fused_lstm*"),
    "gru*": ("gru*", "thnn_fused_gru*"),
    "layer_norm": ("layer_norm", "native_layer_norm*", "fused_layer_norm*"),
    "batch_norm": ("batch_norm*", "native_batch_norm*", "cudnn_batch_norm*", "miopen_batch_norm*"),
    "group_norm": ("group_norm", "native_group_norm*"),
    "scaled_dot_product_attention": (
        "scaled_dot_product_attention",
        "scaled_dot_product_*",
        "flash_attention*",
        "efficient_attention*",
    ),
    "unfold": ("unfold", "im2col*"),
    "fold": ("fold", "col2im*"),
    "F.unfold": ("im2col*", "Unfold"),
    "torch.fft": ("fft*", "rfft*", "irfft*", "ifft*"),
    "any torch function": ("*",),
    "autograd": ("autograd", "backward", "requires_grad_", "func", "vjp", "jvp", "jacrev", "jacfwd", "hessian"),
}
"""Words whose kernels carry other names: the word itself need not be repeated unless it is in the list."""


def plain_name(name: str) -> str:
    """Strip what a spelling adds to a name: `aten::_softmax`, `special_softmax` and `softmax_` are `softmax`."""
    return name.rpartition("::")[2].lstrip("_").removeprefix("special_").rstrip("_")


@lru_cache(maxsize=1024)
def expand(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the patterns that the given forbidden words stand for."""
    return tuple(dict.fromkeys(pattern for word in words for pattern in FAMILIES.get(word, (word,))))


@lru_cache(maxsize=16_384)
def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a torch name, in any spelling, is covered by one of the patterns."""
    bare = plain_name(name)
    return any(bare == plain_name(pattern) or fnmatchcase(bare, pattern) for pattern in patterns)
