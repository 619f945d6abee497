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
__all__ = ["EXERCISES", "FORBID", "TITLE"]
