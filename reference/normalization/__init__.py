"""Normalisation: batch norm and its backward pass, layer norm, group norm, and folding batch norm away."""

TITLE = "Normalisation"
EXERCISES: tuple[str, ...] = (
    "batch_norm",
    "batch_norm_layer",
    "batch_norm_backward",
    "layer_norm",
    "group_norm",
    "fuse_conv_bn",
)
FORBID = (
    "*batch_norm*", "*layer_norm*", "*group_norm*", "*instance_norm*", "*rms_norm*", "local_response_norm",
    "native_*", "*Norm", "*Norm1d", "*Norm2d", "*Norm3d",
)  # fmt: skip
