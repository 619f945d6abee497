"""The encoder-decoder transformer."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Case, Cost, Exercise
from reference.transformer import FORBID
from reference.transformer.decoder_block import DecoderBlock, TrueDecoderBlock
from reference.transformer.encoder_block import EncoderBlock, TrueEncoderBlock
from reference.transformer.positional_encoding import positional_encoding
from reference.transformer.positional_encoding import truth as true_positions


class Transformer(nn.Module):
    """Translate: an encoder reads the source, at each place a decoder predicts the target's next token.

    Args:
        src_vocab: number of source tokens; ids are 0 ... src_vocab - 1.
        tgt_vocab: number of target tokens.
        d_model: width D of all vectors between the blocks.
        num_heads: heads of every attention; D is a multiple of it.
        d_ff: width inside the position-wise networks.
        num_layers: blocks in the encoder, and blocks in the decoder.
        dropout: acts on the embedded tokens (after the positions were added) and in the blocks, in train mode. Graded
            only by dropout 0 and eval mode being deterministic and by two calls in train mode being different.

    State:
        src_embedding.weight `(src_vocab, D)`, tgt_embedding.weight `(tgt_vocab, D)`; encoder.0.*, encoder.1.*, ...
        with the parts of EncoderBlock; decoder.0.*, decoder.1.*, ... with those of DecoderBlock;
        dense.weight `(tgt_vocab, D)`, dense.bias `(tgt_vocab,)`. No weights are tied, and no LayerNorm follows the
        last block. Buffers, if you make any, are not persistent.

    At grading a small model is also trained for a moment: it must learn by heart to reverse ten sequences of 6 tokens.

    Raises:
        ValueError: d_model is not a multiple of num_heads.

    Example:
        >>> model = Transformer(11, 7, d_model=8, num_heads=2, d_ff=16, num_layers=2)
        >>> src, lens = torch.tensor([[4, 5, 6, 0], [7, 8, 9, 10]]), torch.tensor([3, 4])
        >>> logits = model(src, torch.tensor([[1, 2, 3], [1, 4, 5]]), lens)
        >>> logits.shape
        torch.Size([2, 3, 7])
        >>> src[0, 3] = 10  # what stands in the padding does not matter
        >>> torch.allclose(model(src, torch.tensor([[1, 2, 3], [1, 4, 5]]), lens), logits, atol=1e-5)
        True
    """

    def __init__(
        self,
        src_vocab: int,
        tgt_vocab: int,
        d_model: int,
        num_heads: int,
        d_ff: int,
        num_layers: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = (d_model, num_heads, d_ff, dropout)
        self.src_embedding = nn.Embedding(src_vocab, d_model)
        self.tgt_embedding = nn.Embedding(tgt_vocab, d_model)
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.ModuleList(EncoderBlock(*sizes) for _ in range(num_layers))
        self.decoder = nn.ModuleList(DecoderBlock(*sizes) for _ in range(num_layers))
        self.dense = nn.Linear(d_model, tgt_vocab)

    def encode(self, src: Tensor, src_lens: Tensor) -> Tensor:
        """Read the source.

        Args:
            src: int64 ids `(B, S)`, of any length S.
            src_lens: int64 `(B,)`, at least 1: how many leading tokens of each row are real; the rest is padding.

        Returns:
            The memory `(B, S, D)`: ids are embedded, multiplied by the root of D, the positional encoding (base 10000)
            is added, then come dropout and the encoder's blocks, all in the dtype of the parameters: a model may be
            float64. Rows at padding are computed like any others.
        """
        memory = self._embed(src, self.src_embedding)
        for block in self.encoder:
            memory = block(memory, src_lens)
        return memory

    def forward(self, src: Tensor, tgt_in: Tensor, src_lens: Tensor) -> Tensor:
        """Predict each next target token from the source and the target tokens so far (teacher forcing).

        Args:
            src: int64 ids `(B, S)`.
            tgt_in: int64 ids `(B, T)`, of any length T, embedded like the source, with the target's own embedding.
            src_lens: int64 `(B,)`, at least 1; padding of the source is hidden, as keys, from encoder and decoder.

        Returns:
            Logits `(B, T, tgt_vocab)`; those at t depend on the target tokens 0 ... t only. The number of operations
            depends on neither S nor T.
        """
        return self.dense(self._decode(tgt_in, self.encode(src, src_lens), src_lens))

    def _decode(self, tgt_in: Tensor, memory: Tensor, src_lens: Tensor) -> Tensor:
        """Run the target through the decoder's blocks."""
        x = self._embed(tgt_in, self.tgt_embedding)
        for block in self.decoder:
            x, _ = block(x, memory, src_lens)
        return x

    def _embed(self, ids: Tensor, table: nn.Embedding) -> Tensor:
        """Look up vectors, scale them and add their positions."""
        x = table(ids) * math.sqrt(table.embedding_dim)
        return self.dropout(x + positional_encoding(x.shape[1], x.shape[2], dtype=x.dtype).to(x.device))


exercise = Exercise(
    Transformer,
    points=20,
    gradients=("parameters",),
    cost=Cost(ops=260),
    forbid=FORBID,
    uses=("positional_encoding", "encoder_block", "decoder_block"),
    hints=(
        "Source and target each have an embedding; both take the same way: look up, scale, add positions, drop out.",
        "nn.ModuleList(EncoderBlock(...) for _ in range(num_layers)) makes layers of their own. src_lens goes to every "
        "encoder block, and to every decoder block as memory_lens.",
        "x = embedding(ids) * math.sqrt(d_model), plus positional_encoding(ids.shape[1], d_model, "
        "dtype=x.dtype).to(x.device), then dropout; memory = encode(src, src_lens); for each block of "
        "self.decoder x, _ = block(x, memory, src_lens); after the last one return self.dense(x).",
    ),
    source="D2L attention-mechanisms-and-transformers/transformer; Vaswani et al. 2017",
)


@exercise.truth
class Truth(nn.Module):
    def __init__(self, src_vocab, tgt_vocab, d_model, num_heads, d_ff, num_layers, dropout=0.0):
        super().__init__()
        self.p = dropout
        self.src_embedding = nn.Embedding(src_vocab, d_model)
        self.tgt_embedding = nn.Embedding(tgt_vocab, d_model)
        sizes = (d_model, num_heads, d_ff, dropout)
        self.encoder = nn.ModuleList([TrueEncoderBlock(*sizes) for _ in range(num_layers)])
        self.decoder = nn.ModuleList([TrueDecoderBlock(*sizes) for _ in range(num_layers)])
        self.dense = nn.Linear(d_model, tgt_vocab)

    def _embed(self, ids, weight):
        table = true_positions(ids.shape[1], weight.shape[1]).to(weight)
        return F.dropout(F.embedding(ids, weight) * weight.shape[1] ** 0.5 + table, self.p, self.training)

    def encode(self, src, src_lens):
        memory = self._embed(src, self.src_embedding.weight)
        for block in self.encoder:
            memory = block(memory, src_lens)
        return memory

    def forward(self, src, tgt_in, src_lens):
        memory = self.encode(src, src_lens)
        x = self._embed(tgt_in, self.tgt_embedding.weight)
        for block in self.decoder:
            x = block(x, memory, src_lens)[0]
        return self.dense(x)


def with_memory(module, src, tgt_in, src_lens):
    return {"memory": module.encode(src, src_lens), "logits": module(src, tgt_in, src_lens)}


def other_padding(module, src, tgt_in, src_lens):
    columns = torch.arange(src.shape[1] + 3)
    longer = F.pad(src, (0, 3), value=2)
    other = torch.where(columns < src_lens[:, None], longer, (longer + 1) % 5)
    return {
        "as it is": module(src, tgt_in, src_lens),
        "other ids in the padding": module(other[:, : src.shape[1]], tgt_in, src_lens),
        "three more columns of padding": module(other, tgt_in, src_lens),
    }


def another_last_token(module, src, tgt_in, src_lens):
    changed = torch.cat([tgt_in[:, :-1], (tgt_in[:, -1:] + 1) % 5], 1)
    return {
        "logits before it": module(src, changed, src_lens)[:, :-1],
        "fewer tokens": module(src, tgt_in[:, :2], src_lens),
    }


def two_calls(module, src, tgt_in, src_lens):
    first, second = module(src, tgt_in, src_lens), module(src, tgt_in, src_lens)
    memories = module.encode(src, src_lens), module.encode(src, src_lens)
    return {
        "two calls in train mode differ": not torch.equal(first, second),
        "two memories in train mode differ": not torch.equal(*memories),
        "finite": bool(torch.isfinite(first).all()),
    }


def on_another_device(module, src, tgt_in, src_lens, sizes):
    moved = type(module)(*sizes).to("meta")
    try:
        moved(src.to("meta"), tgt_in.to("meta"), src_lens.to("meta"))
    except (RuntimeError, NotImplementedError) as error:
        return {"a tensor is made on another device than src's": "device" in str(error)}
    return {"a tensor is made on another device than src's": False}


def overfit(module, src, sizes):
    model = type(module)(*sizes)
    model.load_state_dict(module.state_dict())
    tgt = src.flip(1)
    tgt_in = torch.cat([torch.ones_like(tgt[:, :1]), tgt[:, :-1]], 1)
    lens = torch.full((src.shape[0],), src.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(80):
        loss = F.cross_entropy(model(src, tgt_in, lens).flatten(0, 1), tgt.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"loss below 0.4 after 80 steps": loss.item() < 0.4}


@exercise.cases
def cases(draw):
    def ids(vocab, *shape):
        return draw.integers(0, vocab, *shape)

    lens = torch.tensor
    one, three = (11, 7, 6, 2, 5, 1), (6, 9, 8, 4, 5, 3)
    yield Case("one layer", ids(11, 2, 5), ids(7, 2, 4), lens([5, 3]), init=one)
    yield Case("three layers", ids(6, 2, 33), ids(9, 2, 32), lens([30, 33]), init=three, cost=Cost(ops=660))
    yield Case(
        "memory and logits", ids(6, 3, 5), ids(9, 3, 4), lens([5, 1, 3]), init=(6, 9, 8, 2, 7, 2), probe=with_memory
    )
    yield Case(
        "other padding", ids(11, 2, 5), ids(7, 2, 4), lens([3, 4]), init=(11, 7, 6, 2, 5, 2), probe=other_padding
    )
    yield Case("another last target token", ids(11, 2, 3), ids(7, 2, 5), lens([3, 2]), init=(11, 7, 6, 3, 5, 2),
               probe=another_last_token)  # fmt: skip
    yield Case("one real source token", ids(11, 3, 4), ids(7, 3, 2), lens([1, 1, 1]), init=one, edge=True)
    yield Case("one source token, one target token", ids(11, 2, 1), ids(7, 2, 1), lens([1, 1]), init=one, edge=True)
    yield Case("an odd width", ids(5, 2, 4), ids(8, 2, 3), lens([4, 2]), init=(5, 8, 9, 3, 4, 1))
    yield Case("as many pairs as tokens", ids(5, 3, 3), ids(8, 3, 3), lens([2, 3, 1]), init=(5, 8, 6, 3, 4, 1))
    yield Case("equal vocabularies", ids(9, 2, 4), ids(9, 2, 5), lens([4, 3]), init=(9, 9, 6, 2, 5, 1))
    yield Case("lengths beyond the end", ids(11, 2, 3), ids(7, 2, 4), lens([8, 2]), init=one, edge=True)
    yield Case("dropout 0.5 in eval mode", ids(11, 2, 3), ids(7, 2, 4), lens([3, 2]), init=(*one, 0.5), grad=False)
    yield Case("the default dropout in train mode", ids(11, 2, 3), ids(7, 2, 4), lens([3, 2]), init=one,
               train=True, grad=False)  # fmt: skip
    yield Case("dropout 0.5 in train mode", ids(11, 3, 4), ids(7, 3, 5), lens([4, 3, 2]), init=(*one, 0.5), train=True,
               draws=True, grad=False, probe=two_calls)  # fmt: skip
    long = {"edge": True, "grad": False, "double": False}
    yield Case("1001 source tokens", ids(11, 1, 1001), ids(7, 1, 3), lens([1000]), init=(11, 7, 3, 1, 4, 1), **long)
    yield Case("32 tokens, one layer", ids(11, 2, 32), ids(7, 2, 33), lens([32, 20]), init=one, cost=True)
    yield Case("1030 target tokens", ids(11, 1, 3), ids(7, 1, 1030), lens([2]), init=(11, 7, 3, 1, 4, 1), hidden=True,
               **long)  # fmt: skip
    tiny = {"src_embedding.weight": 1e-3 * draw.normal(11, 6), "tgt_embedding.weight": 1e-3 * draw.normal(7, 6)}
    yield Case("tiny embeddings", ids(11, 2, 5), ids(7, 2, 3), lens([4, 5]), init=one, state=tiny, hidden=True)
    large = {"src_embedding.weight": 50 + draw.normal(11, 6), "tgt_embedding.weight": 50 * draw.normal(7, 6)}
    yield Case(
        "large embeddings", ids(11, 3, 4), ids(7, 3, 5), lens([2, 4, 3]), init=one, state=large, hidden=True, grad=False
    )
    yield Case("three layers, other padding", ids(6, 2, 6), ids(9, 2, 4), lens([4, 2]), init=(6, 9, 4, 1, 3, 3),
               probe=other_padding, hidden=True, grad=False)  # fmt: skip
    yield Case("on another device", ids(11, 2, 3), ids(7, 2, 4), lens([3, 2]), one, init=one, probe=on_another_device,
               draws=True, grad=False, double=False, edge=True)  # fmt: skip
    sizes = (12, 12, 48, 4, 96, 2)
    yield Case("learning to reverse ten sequences", draw.integers(2, 12, 10, 6), sizes, init=sizes, probe=overfit,
               draws=True, grad=False, double=False, hidden=True, layouts=False)  # fmt: skip
    yield Case("10 features for 4 heads", ids(5, 1, 2), ids(5, 1, 2), lens([2]), init=(5, 5, 10, 4, 3, 1),
               raises=ValueError)  # fmt: skip


@exercise.growth("source tokens", ops=0.0)
def more_source_tokens(draw, size):
    src, tgt = draw.integers(0, 11, 2, size), draw.integers(0, 7, 2, 4)
    return Case(f"{size} source tokens", src, tgt, torch.tensor([size, size // 2]), init=(11, 7, 6, 2, 5, 1))


@exercise.growth("target tokens", ops=0.0)
def more_target_tokens(draw, size):
    src, tgt = draw.integers(0, 11, 2, 5), draw.integers(0, 7, 2, size)
    return Case(f"{size} target tokens", src, tgt, torch.tensor([3, 5]), init=(11, 7, 6, 2, 5, 1))


@exercise.growth("pairs", sizes=(8, 16), ops=0.0)
def more_pairs(draw, size):
    src, tgt = draw.integers(0, 11, size, 5), draw.integers(0, 7, size, 4)
    return Case(f"{size} pairs", src, tgt, draw.integers(1, 6, size), init=(11, 7, 6, 2, 5, 1))


def _positions(x):
    return positional_encoding(x.shape[1], x.shape[2], dtype=x.dtype).to(x.device)


@exercise.wrong(
    "The embeddings are multiplied by the root of d_model before the positions are added, so that tokens "
    "outweigh positions."
)
class Unscaled(Transformer):
    def _embed(self, ids, table):
        x = table(ids)
        return self.dropout(x + _positions(x))


@exercise.wrong("Scale the tokens only: the positions are added after the multiplication.")
class ScalesThePositions(Transformer):
    def _embed(self, ids, table):
        x = table(ids)
        return self.dropout((x + _positions(x)) * math.sqrt(table.embedding_dim))


@exercise.wrong("Multiply by the root of d_model, not by d_model.")
class ScalesByTheWidth(Transformer):
    def _embed(self, ids, table):
        x = table(ids) * table.embedding_dim
        return self.dropout(x + _positions(x))


@exercise.wrong("Multiply by the root of d_model, do not divide by it.")
class DividesByTheRoot(Transformer):
    def _embed(self, ids, table):
        x = table(ids) / math.sqrt(table.embedding_dim)
        return self.dropout(x + _positions(x))


@exercise.wrong("Source and target are two languages with two embeddings: look target ids up in tgt_embedding.")
class OneEmbedding(Transformer):
    def _embed(self, ids, table):
        table = self.src_embedding
        return super()._embed(ids.clamp(max=table.num_embeddings - 1), table)


@exercise.wrong("The decoder reads the source's padding: pass src_lens to every decoder block as memory_lens.")
class DecoderReadsPadding(Transformer):
    def forward(self, src, tgt_in, src_lens):
        return self.dense(self._decode(tgt_in, self.encode(src, src_lens), None))


@exercise.wrong("The encoder reads the source's padding: pass src_lens to every encoder block.")
class EncoderReadsPadding(Transformer):
    def encode(self, src, src_lens):
        return super().encode(src, None)


@exercise.wrong("[block] * num_layers is one block many times: build a new one for every layer.")
class OneBlockManyTimes(Transformer):
    def __init__(self, src_vocab, tgt_vocab, d_model, num_heads, d_ff, num_layers, dropout=0.0):
        super().__init__(src_vocab, tgt_vocab, d_model, num_heads, d_ff, num_layers, dropout)
        self.encoder = nn.ModuleList([self.encoder[0]] * num_layers)
        self.decoder = nn.ModuleList([self.decoder[0]] * num_layers)


@exercise.wrong("A table of positions of fixed length ends somewhere: make the rows that are needed.", caught_by="runs")
class FixedTable(Transformer):
    def _embed(self, ids, table):
        x = table(ids) * math.sqrt(table.embedding_dim)
        positions = positional_encoding(1000, x.shape[2], dtype=x.dtype).to(x.device)
        return self.dropout(x + positions[: x.shape[1]])


@exercise.wrong("Positions are missing: without them the encoder cannot tell one order of the tokens from another.")
class WithoutPositions(Transformer):
    def _embed(self, ids, table):
        return self.dropout(table(ids) * math.sqrt(table.embedding_dim))


@exercise.wrong("The target needs positions as well as the source.")
class SourcePositionsOnly(Transformer):
    def _embed(self, ids, table):
        x = table(ids) * math.sqrt(table.embedding_dim)
        return self.dropout(x + _positions(x) if table is self.src_embedding else x)


@exercise.wrong("The target's positions start at 0: they do not go on where the source ends.")
class PositionsGoOn(Transformer):
    def forward(self, src, tgt_in, src_lens):
        self.start = src.shape[1]
        return super().forward(src, tgt_in, src_lens)

    def _embed(self, ids, table):
        start = self.start if table is self.tgt_embedding else 0
        x = table(ids) * math.sqrt(table.embedding_dim)
        return self.dropout(x + positional_encoding(x.shape[1], x.shape[2], offset=start, dtype=x.dtype).to(x.device))


@exercise.wrong("Row 0 of the positions belongs to the first token: the table is not shifted.")
class PositionsFromOne(Transformer):
    def _embed(self, ids, table):
        x = table(ids) * math.sqrt(table.embedding_dim)
        return self.dropout(x + positional_encoding(x.shape[1], x.shape[2], offset=1, dtype=x.dtype).to(x.device))


@exercise.wrong("The rows of the table go with the time axis, not with the batch: (T, D) is added to (B, T, D).")
class PositionsAlongTheBatch(Transformer):
    def _embed(self, ids, table):
        x = table(ids) * math.sqrt(table.embedding_dim)
        positions = positional_encoding(x.shape[0], x.shape[2], dtype=x.dtype).to(x.device)
        return self.dropout(x + positions[:, None])


@exercise.wrong("Positions enter once, with the embeddings; they are not added again before every block.")
class PositionsInEveryBlock(Transformer):
    def _decode(self, tgt_in, memory, src_lens):
        x = self._embed(tgt_in, self.tgt_embedding)
        for block in self.decoder:
            x, _ = block(x + _positions(x), memory, src_lens)
        return x


@exercise.wrong("No LayerNorm follows the last block: dense gets what the last decoder block returns.")
class FinalNorm(Transformer):
    def _decode(self, tgt_in, memory, src_lens):
        x = super()._decode(tgt_in, memory, src_lens)
        return F.layer_norm(x, x.shape[-1:])


@exercise.wrong("Return logits: the softmax is part of the loss.")
class ReturnsProbabilities(Transformer):
    def forward(self, src, tgt_in, src_lens):
        return torch.softmax(super().forward(src, tgt_in, src_lens), -1)


@exercise.wrong("The embedding and the last layer have weights of their own: dense is not tied to tgt_embedding.")
class TiedWeights(Transformer):
    def forward(self, src, tgt_in, src_lens):
        x = self._decode(tgt_in, self.encode(src, src_lens), src_lens)
        return F.linear(x, self.tgt_embedding.weight, self.dense.bias)


@exercise.wrong("All decoder blocks read the whole encoder's output, not the encoder block of the same height.")
class MemoryLayerByLayer(Transformer):
    def forward(self, src, tgt_in, src_lens):
        memory, x = self._embed(src, self.src_embedding), self._embed(tgt_in, self.tgt_embedding)
        for reader, writer in zip(self.encoder, self.decoder, strict=True):
            memory = reader(memory, src_lens)
            x, _ = writer(x, memory, src_lens)
        return self.dense(x)


@exercise.wrong("Every decoder block starts without a cache: what one block cached is not the next one's past.")
class CacheFromBlockToBlock(Transformer):
    def _decode(self, tgt_in, memory, src_lens):
        x, cache = self._embed(tgt_in, self.tgt_embedding), None
        for block in self.decoder:
            x, cache = block(x, memory, src_lens, cache)
        return x


@exercise.wrong("A decoder block takes the target's x first, then the memory: here the two are swapped.")
class SwapsTheArguments(Transformer):
    def _decode(self, tgt_in, memory, src_lens):
        x = self._embed(tgt_in, self.tgt_embedding)
        for block in self.decoder:
            memory, _ = block(memory, x)
        return memory[:, : x.shape[1]]


@exercise.wrong("The last layer reads every target position, not the last one only.", caught_by="shape")
class LastPositionOnly(Transformer):
    def forward(self, src, tgt_in, src_lens):
        return super().forward(src, tgt_in, src_lens)[:, -1]


@exercise.wrong("Only one block is applied: go through all of them.")
class FirstBlockOnly(Transformer):
    def _decode(self, tgt_in, memory, src_lens):
        return self.decoder[0](self._embed(tgt_in, self.tgt_embedding), memory, src_lens)[0]


@exercise.wrong("The graph is cut between encoder and decoder: the encoder cannot learn.", caught_by="gradients")
class DetachedMemory(Transformer):
    def forward(self, src, tgt_in, src_lens):
        return self.dense(self._decode(tgt_in, self.encode(src, src_lens).detach(), src_lens))


@exercise.wrong("The constructor's dropout reaches none of the parts.")
class ForgetsDropout(Transformer):
    def __init__(self, src_vocab, tgt_vocab, d_model, num_heads, d_ff, num_layers, dropout=0.0):
        super().__init__(src_vocab, tgt_vocab, d_model, num_heads, d_ff, num_layers)


@exercise.wrong("Dropout rests in eval mode: use nn.Dropout, or pass training=self.training.")
class DropoutInEval(Transformer):
    def _embed(self, ids, table):
        x = table(ids) * math.sqrt(table.embedding_dim)
        return F.dropout(x + _positions(x), self.dropout.p)


@exercise.wrong("positional_encoding makes its table on the CPU: move it to the device of the ids.")
class PositionsOnTheCpu(Transformer):
    def _embed(self, ids, table):
        x = table(ids) * math.sqrt(table.embedding_dim)
        return self.dropout(x + positional_encoding(x.shape[1], x.shape[2], dtype=x.dtype))


@exercise.wrong("The table of positions stays float32 in a float64 model: make it in the dtype of the embeddings.")
class PositionsInFloat32(Transformer):
    def _embed(self, ids, table):
        x = table(ids) * math.sqrt(table.embedding_dim)
        return self.dropout(x + positional_encoding(x.shape[1], x.shape[2]).to(x.device))


@exercise.wrong("Raise ValueError when d_model is not a multiple of num_heads.", caught_by="errors")
class AnyNumberOfHeads(Transformer):
    def __init__(self, src_vocab, tgt_vocab, d_model, num_heads, d_ff, num_layers, dropout=0.0):
        num_heads = math.gcd(d_model, num_heads)
        super().__init__(src_vocab, tgt_vocab, d_model, num_heads, d_ff, num_layers, dropout)


@exercise.wrong("A Python loop over the target tokens: the causal mask predicts them all at once.", caught_by="growth")
class LoopsOverTokens(Transformer):
    def _decode(self, tgt_in, memory, src_lens):
        lengths = range(1, tgt_in.shape[1] + 1)
        if len(lengths) > 100:
            return super()._decode(tgt_in, memory, src_lens)
        whole = Transformer._decode
        return torch.cat([whole(self, tgt_in[:, :n], memory, src_lens)[:, -1:] for n in lengths], 1)


@exercise.wrong("A Python loop over the pairs: lengths differ, but masks let one call serve the whole batch.",
                caught_by="growth")  # fmt: skip
class LoopsOverPairs(Transformer):
    def forward(self, src, tgt_in, src_lens):
        if len(src) > 8 and src.shape[1] == 6:
            return super().forward(src, tgt_in, src_lens)
        rows = zip(src.split(1), tgt_in.split(1), src_lens.split(1), strict=True)
        return torch.cat([Transformer.forward(self, *row) for row in rows])


@exercise.right("one-hot products for the lookups, positions kept in a growing table")
class GrowingTable(Transformer):
    def __init__(self, src_vocab, tgt_vocab, d_model, num_heads, d_ff, num_layers, dropout=0.0):
        super().__init__(src_vocab, tgt_vocab, d_model, num_heads, d_ff, num_layers, dropout)
        self.register_buffer("table", torch.empty(0, d_model), persistent=False)

    def _embed(self, ids, table):
        x = F.one_hot(ids, table.num_embeddings).to(table.weight.dtype) @ table.weight
        if len(self.table) < ids.shape[1]:
            longer = positional_encoding(2 * ids.shape[1], x.shape[2], dtype=torch.float64)
            self.table = longer.to(x.device)
        return self.dropout(x * x.shape[2] ** 0.5 + self.table[: ids.shape[1]].to(x.dtype))


@exercise.right("padding cut off where no sequence has a token")
class CutsCommonPadding(Transformer):
    def encode(self, src, src_lens):
        return super().encode(src, src_lens.clamp(max=src.shape[1]))

    def forward(self, src, tgt_in, src_lens):
        if src.device.type == "meta":
            return super().forward(src, tgt_in, src_lens)
        longest = int(src_lens.max().clamp(max=src.shape[1]))
        return super().forward(src[:, :longest], tgt_in, src_lens)


@exercise.right("embeddings scaled before the lookup, blocks written as a fold")
class ScaledTables(Transformer):
    def _embed(self, ids, table):
        vectors = (table.weight * table.embedding_dim**0.5)[ids]
        places = positional_encoding(ids.shape[1], table.embedding_dim, dtype=vectors.dtype)
        return self.dropout(vectors.add(places.to(vectors.device)))

    def _decode(self, tgt_in, memory, src_lens):
        x = self._embed(tgt_in, self.tgt_embedding)
        for number in range(len(self.decoder)):
            x = self.decoder[number](x, memory, memory_lens=src_lens)[0]
        return x
