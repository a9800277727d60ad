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
        expected: (n,) what the final score is expected to be; after the last layer, what it is.
    """

    states: Tensor
    valid: Tensor
    content: Tensor
    rarity: Tensor
    asked: int
    scores: Tensor
    expected: Tensor

    def keep(self, places: Tensor) -> Pairs:
        """The documents at `places` alone."""
        kept = {name: getattr(self, name)[places] for name in ("states", "valid", "content", "scores", "expected")}
        return replace(self, **kept)


@dataclass(frozen=True, slots=True)
class Sight:
    """What a head sees of one query beside n documents.

    Attributes:
        query: (n, width) mean state of the query, of length 1.
        document: (n, width) of the document.
        tokens: (n, asked, width) states of the query.
        matches: (n, asked, 1 + kernels) best match and soft counts of each query token.
    """

    query: Tensor
    document: Tensor
    tokens: Tensor
    matches: Tensor

    @classmethod
    def of(cls, states: Tensor, pairs: Pairs) -> Sight:
        """From (n, asked + longest document, width) states."""
        asked, mask = pairs.asked, pairs.valid[..., None].to(states.dtype)
        query, document = states[:, :asked], states[:, asked:]
        kept = mask[:, asked:]
        mean_query = normalize(query.mean(1), dim=-1)
        mean_document = normalize((document * kept).sum(1) / kept.sum(1), dim=-1)
        near = normalize(query, dim=-1) @ normalize(document, dim=-1).transpose(1, 2)  # (n, asked, longest)
        near = near.masked_fill(~pairs.content[:, None, asked:], -1.0)
        found = [near.amax(-1)]
        found += [torch.exp(-(((near - middle) / _WIDTH) ** 2) / 2).sum(-1).log1p() for middle in _KERNELS]
        return cls(mean_query, mean_document, query, torch.stack(found, -1))

    def matched(self, emphasis: Tensor, pairs: Pairs) -> Tensor:
        """(n, 1 + kernels) matches, each query token counting by the softmax of its (n or 1, asked) emphasis."""
        weight = emphasis.masked_fill(~pairs.content[:, : pairs.asked], CLOSED).softmax(-1)
        return (self.matches * weight[..., None]).sum(1)


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

    def forward(self, sight: Sight, pairs: Pairs) -> Tensor:
        score = 10 * (sight.query * sight.document) @ self.product
        score = score + sight.query @ self.query + sight.document @ self.document
        return score + 10 * self.matched(sight, pairs) @ self.match

    def matched(self, sight: Sight, pairs: Pairs) -> Tensor:
        """(n, 1 + kernels) matches by the rarity of the query's tokens and what they stand for."""
        return sight.matched(pairs.rarity + sight.tokens @ self.term, pairs)


class Foresight(nn.Module):
    """What the layers to come will add to the score, a linear function of what a head sees: (n,).

    Args:
        width: size of a hidden state.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(2 * width + 3 * (1 + len(_KERNELS))), requires_grad=False)

    def forward(self, sight: Sight, head: Head, pairs: Pairs) -> Tensor:
        return self.features(sight, head, pairs) @ self.weights

    def features(self, sight: Sight, head: Head, pairs: Pairs) -> Tensor:
        """(n, features): product of the means, the document's, and matches by the head's weights, rarity and none."""
        rarity = pairs.rarity.expand(pairs.content.shape[0], -1)
        matches = head.matched(sight, pairs), sight.matched(rarity, pairs), sight.matched(0 * rarity, pairs)
        return torch.cat([10 * sight.query * sight.document, sight.document, *(10 * one for one in matches)], -1)


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
        self.foresights = nn.ModuleList(Foresight(width) for _ in range(depth))

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
        none = states.new_zeros(len(rows))
        pairs = Pairs(states, valid, content, rarity, len(asked), none, none)
        return self._scored(0, self.embeddings.word_embeddings(ids).float(), pairs)

    def advance(self, at: int, pairs: Pairs, *, layer: nn.Module | None = None) -> Pairs:
        """Run layer `at`, from 0, and add its head's score; `layer` stands in for the model's own."""
        states = pairs.states
        if at == OPENED:
            apart = torch.arange(states.shape[1]) >= pairs.asked
            states = states + apart[:, None] * self.segment
        states = (layer or self.layers[at])(states, self._mask(at, pairs))
        return self._scored(at + 1, states.float(), replace(pairs, states=states))

    def _scored(self, done: int, states: Tensor, pairs: Pairs) -> Pairs:
        """With what the head after so many layers adds to the score, and what is foreseen there."""
        sight = Sight.of(states, pairs)
        scores = pairs.scores + self.heads[done](sight, pairs)
        if done == len(self.foresights):
            return replace(pairs, scores=scores, expected=scores)
        foreseen = self.foresights[done](sight, self.heads[done], pairs)
        return replace(pairs, scores=scores, expected=scores + foreseen)

    def _mask(self, at: int, pairs: Pairs) -> Tensor:
        """(n, heads, length, length) added to the attention logits."""
        second = torch.arange(pairs.valid.shape[1]) >= pairs.asked
        across = (second[:, None] != second[None, :]).float()
        gate = torch.full((1,), CLOSED) if at < OPENED else self.gates[at - OPENED]
        padding = (~pairs.valid).float()[:, None, None, :] * CLOSED
        return padding + gate[:, None, None] * across
