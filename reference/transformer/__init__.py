"""Transformers: positions, blocks, the encoder-decoder model, and their vision and GPT relatives."""

from reference.attention import FORBID

TITLE = "Transformers"
EXERCISES: tuple[str, ...] = (
    "positional_encoding",
    "position_wise_ffn",
    "add_norm",
    "encoder_block",
    "decoder_block",
    "transformer",
    "patch_embedding",
    "gpt_block",
)
EQUIVALENT = {
    "positional_encoding: positions = torch.arange(offset, offset + num_positions)": "the exponents are float64",
    "encoder_block: self.attention = MultiHeadAttention(d_model, num_heads)": "dropout on the weights is not graded",
    "decoder_block: self.attention1 = MultiHeadAttention(d_model, num_heads)": "dropout on the weights is not graded",
    "decoder_block: self.attention2 = MultiHeadAttention(d_model, num_heads)": "dropout on the weights is not graded",
    "gpt_block: return self.proj(self._mix(q, k, v).transpose(2, 1).flatten(2))": "transpose has no order",
}
__all__ = ["EQUIVALENT", "EXERCISES", "FORBID", "TITLE"]
