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

_ORDER = "transpose does not care for the order of its axes"
EQUIVALENT = {
    "scaled_dot_product_attention: scores = q / math.sqrt(q.shape[-1]) @ k.transpose(-1, -2)": _ORDER,
    "multi_head_attention: return x.unflatten(-1, (self.num_heads, -1)).transpose(2, 1)": _ORDER,
    "multi_head_attention: return x.transpose(2, 1).flatten(2)": _ORDER,
    "multi_head_attention: scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])": _ORDER,
    "multi_head_attention: scores = q @ k.transpose(2, -1) / math.sqrt(q.shape[-1])": "split keys have four axes",
    "cross_attention: return x.unflatten(-1, (self.num_heads, -1)).transpose(2, 1)": _ORDER,
    "cross_attention: return self.W_o(heads.transpose(2, 1).flatten(2))": _ORDER,
    "attention_maps: with_residual = mean.squeeze(1) + torch.eye(query_len, device=weights.device)": (
        "float32 zeros and ones added to float64 give float64"
    ),
}
"""Mutants of the solutions that do the same, and why."""
