"""Regularization: penalties on the weights, sparse solutions and dropout."""

TITLE = "Regularization"
EXERCISES = ("penalty", "decay_param_groups", "lasso_ista", "dropout", "mc_dropout")

EQUIVALENT = {
    "dropout: dropped = torch.rand(x.shape, generator=generator) < p": "other devices only",
}
"""Mutants of the solutions that do the same, and why."""
