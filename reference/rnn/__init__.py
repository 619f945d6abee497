"""Recurrent networks: scans over time, truncated backpropagation, language models, gates, depth, both directions."""

TITLE = "Recurrent neural networks"
EXERCISES = (
    "rnn_scan",
    "truncated_bptt",
    "perplexity",
    "warmup_generate",
    "gru_scan",
    "lstm_scan",
    "deep_rnn",
    "bidirectional_rnn",
)
FORBID = ("RNN*", "GRU*", "LSTM*", "rnn*", "gru*", "lstm*")
"""torch's own recurrent layers, cells and kernels."""
