"""Softmax regression: from scores to probabilities, a loss, and a trained classifier."""

TITLE = "Softmax regression"
EXERCISES = (
    "softmax",
    "log_softmax",
    "cross_entropy",
    "label_smoothing_loss",
    "accuracy",
    "confusion_matrix",
    "train_softmax",
)

FORBID = (
    "softmax", "log_softmax", "logsumexp", "logaddexp*", "logcumsumexp", "softmin", "gumbel_softmax",
    "adaptive_log_softmax_with_loss", "cross_entropy*", "nll_loss*", "one_hot", "*Loss",
    "scaled_dot_product_attention",
)  # fmt: skip
"""What the unit is about, whatever torch calls it."""

EQUIVALENT = {
    "cross_entropy: scores = logits.masked_fill(~kept.unsqueeze(-1), 1.0)": "ignored rows may hold any finite number",
    "cross_entropy: scores = logits.masked_fill(~kept.unsqueeze(-1), -1.0)": "ignored rows may hold any finite number",
    "label_smoothing_loss: return losses.sum() / max(1, len(losses))": "max does not care for the order",
    "confusion_matrix: _check_labels(target, pred, num_classes)": "the check is the same for both",
    "train_softmax: order = torch.randperm(len(X), generator=generator)": "other devices only",
    "train_softmax: W, b = (W.requires_grad_(), b.to(X.device).requires_grad_())": "other devices only",
    "train_softmax: W, b = (W.to(X.device).requires_grad_(), b.requires_grad_())": "other devices only",
}
"""Mutants of the solutions that do the same, and why."""
