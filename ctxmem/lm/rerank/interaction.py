"""The shipped reranker: a bi-encoder whose upper layers let query and document see each other, with a head per layer.

Built on all-MiniLM-L6-v2. In the lower `OPENED` layers the two texts are encoded apart, exactly as the bi-encoder does
(cf. PreTTR, MacAvaney et al., SIGIR 2020, section 3.2). From there on they share one attention, in which a learned gate
per head is added to the logits of pairs of tokens from different texts. Each layer's head adds to a running score:
the product of the mean states (so the last layer starts as the bi-encoder's cosine), the weighted best match of each
query token (MaxSim; ColBERT, Khattab & Zaharia, SIGIR 2020, equation 3) and soft term counts (kernels; K-NRM, Xiong et
al., SIGIR 2017, equations 4-6). So any layer gives a ranking, and training starts from the bi-encoder's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import BertModel

OPENED = 2
CLOSED = -1e4
START, END = 101, 102
_KERNELS = (0.95, 0.8, 0.6)
_WIDTH = 0.1
_GATE = -3.0


@dataclass(frozen=True, slots=True)
class Pairs:
    """One query beside n documents on their way through the layers.

    Attributes:
        states: (n, asked + longest document, width) hidden states, the query's first.
        valid: (n, the same length) false at padding.
        content: as `valid`, false also at the marks around a text.
        rarity: (asked,) log inverse document frequency of each query token.
        asked: tokens of the query, marks included.
        scores: (n,) the running score.
    """

    states: Tensor
    valid: Tensor
    content: Tensor
    rarity: Tensor
    asked: int
    scores: Tensor

    def keep(self, places: Tensor) -> Pairs:
        """The documents at `places` alone."""
        kept = {name: getattr(self, name)[places] for name in ("states", "valid", "content", "scores")}
        return replace(self, **kept)


class Head(nn.Module):
    """What one layer adds to the score: (n,).

    Args:
        width: size of a hidden state.
        cosine: initial weight of the mean states' cosine.
        match: initial weight of the best matches.
    """

    def __init__(self, width: int, *, cosine: float, match: float) -> None:
        super().__init__()
        self.match = nn.Parameter(torch.tensor([match, *[0.0] * len(_KERNELS)]) / 10)
        self.product = nn.Parameter(torch.full((width,), cosine / 10))
        self.query = nn.Parameter(torch.zeros(width))
        self.document = nn.Parameter(torch.zeros(width))
        self.term = nn.Parameter(torch.zeros(width))

    def forward(self, states: Tensor, pairs: Pairs) -> Tensor:
        asked, mask = pairs.asked, pairs.valid[..., None].to(states.dtype)
        query, document = states[:, :asked], states[:, asked:]  # (n, asked, width), (n, longest, width)
        mean_query = normalize(query.mean(1), dim=-1)
        kept = mask[:, asked:]
        mean_document = normalize((document * kept).sum(1) / kept.sum(1), dim=-1)
        score = 10 * (mean_query * mean_document) @ self.product
        score = score + mean_query @ self.query + mean_document @ self.document
        return score + 10 * self._matches(query, document, pairs) @ self.match

    def _matches(self, query: Tensor, document: Tensor, pairs: Pairs) -> Tensor:
        """(n, 1 + kernels) best matches and soft counts."""
        near = normalize(query, dim=-1) @ normalize(document, dim=-1).transpose(1, 2)  # (n, asked, longest)
        near = near.masked_fill(~pairs.content[:, None, pairs.asked :], -1.0)
        weight = (pairs.rarity + query @ self.term).masked_fill(~pairs.content[:, : pairs.asked], CLOSED)
        weight = weight.softmax(-1)
        found = [near.amax(-1)]
        found += [torch.exp(-(((near - middle) / _WIDTH) ** 2) / 2).sum(-1).log1p() for middle in _KERNELS]
        return (torch.stack(found, -1) * weight[..., None]).sum(1)


class Interaction(nn.Module):
    """The whole model.

    Args:
        body: all-MiniLM-L6-v2 or another BERT-shaped bi-encoder that pools by the mean.
        frequency: (vocabulary,) inverse document frequency of each token, positive.
    """

    def __init__(self, body: BertModel, frequency: Tensor) -> None:
        super().__init__()
        self.embeddings = body.embeddings
        self.layers = body.encoder.layer
        depth, width = body.config.num_hidden_layers, body.config.hidden_size
        self.gates = nn.Parameter(torch.full((depth - OPENED, body.config.num_attention_heads), _GATE))
        self.segment = nn.Parameter(torch.zeros(width))
        self.register_buffer("frequency", frequency)
        last = depth
        self.heads = nn.ModuleList(
            Head(width, cosine=20.0 if at == last else 0.0, match={0: 8.0, last: 4.0}.get(at, 0.5))
            for at in range(depth + 1)
        )

    def begin(self, query: Sequence[int], documents: Sequence[Sequence[int]]) -> Pairs:
        """Embed one query beside its documents and score them by their words alone.

        Args:
            query: token ids without marks.
            documents: token ids without marks; padded here to the longest.
        """
        asked = [START, *query, END]
        longest = max(len(one) for one in documents) + 2
        rows = [[*asked, START, *one, END, *[0] * (longest - 2 - len(one))] for one in documents]
        ids = torch.tensor(rows)
        places = torch.cat([torch.arange(len(asked)), torch.arange(longest)]).expand(len(rows), -1)
        valid = ids != 0
        content = valid & (ids != START) & (ids != END)
        if not query:
            content[:, 0] = True
        rarity = self.frequency[ids[0, : len(asked)]].log()  # type: ignore[index]
        states = self.embeddings(input_ids=ids, position_ids=places)
        pairs = Pairs(states, valid, content, rarity, len(asked), states.new_zeros(len(rows)))
        scores = self.heads[0](self.embeddings.word_embeddings(ids).float(), pairs)
        return replace(pairs, scores=scores)

    def advance(self, at: int, pairs: Pairs, *, layer: nn.Module | None = None) -> Pairs:
        """Run layer `at`, from 0, and add its head's score; `layer` stands in for the model's own."""
        states = pairs.states
        if at == OPENED:
            apart = torch.arange(states.shape[1]) >= pairs.asked
            states = states + apart[:, None] * self.segment
        states = (layer or self.layers[at])(states, self._mask(at, pairs))
        scores = pairs.scores + self.heads[at + 1](states.float(), pairs)
        return replace(pairs, states=states, scores=scores)

    def _mask(self, at: int, pairs: Pairs) -> Tensor:
        """(n, heads, length, length) added to the attention logits."""
        second = torch.arange(pairs.valid.shape[1]) >= pairs.asked
        across = (second[:, None] != second[None, :]).float()
        gate = torch.full((1,), CLOSED) if at < OPENED else self.gates[at - OPENED]
        padding = (~pairs.valid).float()[:, None, None, :] * CLOSED
        return padding + gate[:, None, None] * across
