"""Attention: weighted averages whose weights are computed from the data."""

TITLE = "Attention"
EXERCISES: tuple[str, ...] = (
    "nadaraya_watson",
    "masked_softmax",
    "additive_attention",
    "scaled_dot_product_attention",
    "causal_attention",
    "multi_head_attention",
    "cross_attention",
    "attention_maps",
)
FORBID = (
    "scaled_dot_product_attention",
    "multi_head_attention*",
    "MultiheadAttention",
    "Transformer*",
    "nested*",
    "flex_attention*",
    "varlen_attn*",
    "native_multi_head_attention*",
    "transformer_encoder_layer*",
    "attention",
)
"""What the whole unit does without: torch's own attention, in any spelling. `torch.softmax` is allowed."""
