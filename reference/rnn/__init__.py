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

EQUIVALENT = {
    "rnn_scan: hidden = w_hh.shape[1]": "w_hh is checked to be square",
    "rnn_scan: hidden = w_hh.shape[-1]": "w_hh is checked to be square",
    "truncated_bptt: if chunk < 0 or steps == 0:": "range() refuses a step of 0 with a ValueError of its own",
    "truncated_bptt: for t in range(start, min(steps, start + chunk)):": "min does not care for the order",
    "perplexity: log_p = logits[keep].log_softmax(1)": "the selected rows have two dimensions",
    "perplexity: chosen = log_p.gather(1, targets[keep].unsqueeze(-1))": "the selected rows have two dimensions",
    "perplexity: chosen = log_p.gather(-1, targets[keep].unsqueeze(1))": "the selected targets have one dimension",
    "warmup_generate: ids.append(int(logits.argmax(1)))": "the logits are (1, V)",
    "gru_scan: a_r, a_z, a_n = a.chunk(3, 1)": "one step has two dimensions",
    "gru_scan: c_r, c_z, c_n = F.linear(h, w_hh, b_hh).chunk(3, 1)": "the state has two dimensions",
    "gru_scan: rows, hidden = (3 * w_hh.shape[-1], w_hh.shape[1])": "w_hh has two dimensions",
    "gru_scan: rows, hidden = (3 * w_hh.shape[1], w_hh.shape[-1])": "w_hh has two dimensions",
    "lstm_scan: i, f, g, o = (step + h @ w_hh.T).chunk(4, 1)": "one step has two dimensions",
    "lstm_scan: rows, hidden = (4 * w_hh.shape[-1], w_hh.shape[1])": "w_hh has two dimensions",
    "lstm_scan: rows, hidden = (4 * w_hh.shape[1], w_hh.shape[-1])": "w_hh has two dimensions",
    "deep_rnn: bound = hidden_size ** 0.5": "initial values are free",
    "deep_rnn: bound = hidden_size ** (-1.5)": "initial values are free",
    "deep_rnn: bound = hidden_size ** (--0.5)": "initial values are free",
    "deep_rnn: self.register_parameter(f'{name}_l{k}', nn.Parameter(torch.empty(shape).uniform_(bound, bound)))": (
        "initial values are free"
    ),
    "bidirectional_rnn: x = torch.where(valid, x, 1.0)": "padding may hold any finite number",
    "bidirectional_rnn: x = torch.where(valid, x, -1.0)": "padding may hold any finite number",
    "bidirectional_rnn: return torch.full((x.shape[1],), x.shape[0])": "other devices only",
    "bidirectional_rnn: time = torch.arange(steps).unsqueeze(1)": "other devices only",
    "bidirectional_rnn: last = ahead[lens - 1, torch.arange(batch)]": "other devices only",
}
"""Mutants of the solutions that do the same, and why."""
