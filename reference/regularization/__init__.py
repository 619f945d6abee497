"""Regularization: penalties on the weights, sparse solutions and dropout."""

TITLE = "Regularization"
EXERCISES = ("penalty", "decay_param_groups", "lasso_ista", "dropout", "mc_dropout")
