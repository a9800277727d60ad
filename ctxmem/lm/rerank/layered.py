"""What the engine asks of a model that it runs layer by layer, and the adapters of models from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ctxmem.lm.rerank.weights import Resident, Streamed
from ctxmem.lm.text import Tokenizer

YES_NO = (
    'Judge whether the Document answers the Query. Answer only "yes" or "no".\n<Query>: {query}\n<Document>: {text}\n'
    "Answer:"
)
"""Prompt of a generic yes/no reranker."""


class State(Protocol):
    """Candidates of one chunk between two layers."""

    @property
    def states(self) -> Tensor:
        """(n, length, width) hidden states."""
        ...

    def keep(self, places: Tensor) -> State:
        """The candidates at `places` alone."""
        ...


class LayeredModel(Protocol):
    """A reranker that can stop after any layer.

    Attributes:
        name: fingerprint of weights, number format and template; equal names score alike.
        layers: how many there are.
        exits: layer counts after which scores mean something, the last one always; 0 stands for the embeddings alone.
    """

    @property
    def name(self) -> str: ...
    @property
    def layers(self) -> int: ...
    @property
    def exits(self) -> frozenset[int]: ...

    def encode(self, query: str, texts: Sequence[str]) -> Encoded:
        """Token ids of the query beside each text, cut to the model's length."""
        ...

    def begin(self, encoded: Encoded, places: Sequence[int]) -> Any:
        """Embed the candidates at `places`."""
        ...

    def advance(self, at: int, state: Any) -> Any:
        """Run layer `at`, from 0."""
        ...

    def scores(self, done: int, state: Any) -> Tensor:
        """(n,) after `done` layers; higher is better."""
        ...

    def close(self) -> None:
        """Let go of files and threads."""
        ...


@dataclass(frozen=True, slots=True)
class Encoded:
    """A request as tokens.

    Attributes:
        query: ids of the query alone; empty where it stands in every row.
        rows: ids of each candidate.
        spans: by row, the (start, stop) of the tokens whose likelihood is the score; empty when unused.
    """

    query: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    spans: tuple[tuple[int, int], ...] = ()

    def length(self, place: int) -> int:
        """Tokens that the candidate's pass takes."""
        return len(self.query) + len(self.rows[place]) + 4


@dataclass(frozen=True, slots=True)
class Rows:
    """Candidates as padded rows: (n, length, width) states, (n,) lengths, their ids and scored spans."""

    states: Tensor
    lengths: Tensor
    ids: Tensor
    spans: Tensor

    def keep(self, places: Tensor) -> Rows:
        """The candidates at `places` alone."""
        return Rows(self.states[places], self.lengths[places], self.ids[places], self.spans[places])


class CrossEncoder:
    """A BERT-type `...ForSequenceClassification` with one label, its classifier read at every layer.

    Args:
        model: the transformers model.
        tokenizer: its tokenizer.
        name: fingerprint.
        longest: tokens of query and text together.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, *, name: str, longest: int = 512) -> None:
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name
        self.body = model.base_model
        self.layers: int = model.config.num_hidden_layers
        self.exits = frozenset(range(1, self.layers + 1))
        self._weights = Resident(self.body.encoder.layer)
        self._longest = min(longest, model.config.max_position_embeddings)
        self._marks = (tokenizer.id("[CLS]") or 0, tokenizer.id("[SEP]") or 0)

    def encode(self, query: str, texts: Sequence[str]) -> Encoded:
        start, end = self._marks
        asked, *rows = (one.ids for one in self.tokenizer.encode([query, *texts]))
        asked = asked[: self._longest // 2]
        room = self._longest - len(asked) - 3
        joined = tuple((start, *asked, end, *row[:room], end) for row in rows)
        return Encoded((), joined, tuple((len(asked) + 2, 0) for _ in rows))

    def begin(self, encoded: Encoded, places: Sequence[int]) -> Rows:
        padded, lengths = pad([encoded.rows[place] for place in places])
        spans = torch.tensor([encoded.spans[place] for place in places])
        kinds = (torch.arange(padded.shape[1]) >= spans[:, :1]) & (torch.arange(padded.shape[1]) < lengths[:, None])
        states = self.body.embeddings(input_ids=padded, token_type_ids=kinds.long())
        return Rows(states, lengths, padded, spans)

    def advance(self, at: int, state: Rows) -> Rows:
        valid = torch.arange(state.states.shape[1]) < state.lengths[:, None]
        mask = (~valid).to(state.states.dtype)[:, None, None, :] * torch.finfo(state.states.dtype).min
        return replace(state, states=self._weights.layer(at)(state.states, mask))

    def scores(self, done: int, state: Rows) -> Tensor:
        pooled = self.body.pooler(state.states)
        logits: Tensor = self.model.classifier(pooled).float()
        return logits[:, -1]

    def close(self) -> None:
        self._weights.close()


class Decoder:
    """A Llama- or Qwen-type decoder as reranker, by a yes/no answer or by the likelihood of the query.

    Query likelihood (Ponte & Croft, SIGIR 1998; Sachan et al., EMNLP 2022) reads the document and scores the mean log
    probability, in nats per token, of the query after it: the way to use a small model that was not trained to judge.

    Args:
        parts: the pieces of the model, in memory or streamed.
        tokenizer: its tokenizer.
        name: fingerprint.
        yes_no: ask for a judgement instead of scoring the query's likelihood.
        longest: tokens of prompt and document together.
    """

    def __init__(
        self, parts: DecoderParts, tokenizer: Tokenizer, *, name: str, yes_no: bool = False, longest: int = 512
    ) -> None:
        self.parts, self.tokenizer, self.yes_no = parts, tokenizer, yes_no
        self.name = f"{name}-{'yes' if yes_no else 'ql'}-{longest}"
        self.layers = parts.count
        self.exits = frozenset({self.layers})
        self._longest = longest
        self._answers = [tokenizer.encode([word])[0].ids[0] for word in (" yes", " no")]

    def encode(self, query: str, texts: Sequence[str]) -> Encoded:
        if self.yes_no:
            prompts = [YES_NO.format(query=query, text=text[: 6 * self._longest]) for text in texts]
            rows = [one.ids[: self._longest] for one in self.tokenizer.encode(prompts)]
            return Encoded((), tuple(rows))
        asked = self.tokenizer.encode([f" {query}"])[0].ids[:128]
        before, after = (one.ids for one in self.tokenizer.encode(["Passage: ", "\nA question about it:"]))
        room = self._longest - len(asked) - len(before) - len(after)
        bodies = [one.ids[:room] for one in self.tokenizer.encode(list(texts))]
        joined = tuple((*before, *body, *after, *asked) for body in bodies)
        return Encoded((), joined, tuple((len(row) - len(asked), len(row)) for row in joined))

    def begin(self, encoded: Encoded, places: Sequence[int]) -> Rows:
        padded, lengths = pad([encoded.rows[place] for place in places])
        spans = torch.tensor([encoded.spans[place] if encoded.spans else (0, 0) for place in places])
        return Rows(self.parts.embed(padded), lengths, padded, spans)

    def advance(self, at: int, state: Rows) -> Rows:
        size = state.states.shape[1]
        places = torch.arange(size)[None]
        later = torch.triu(torch.full((size, size), torch.finfo(state.states.dtype).min, dtype=state.states.dtype), 1)
        turned = self.parts.rotary(state.states, places)
        layer = self.parts.weights.layer(at)
        made = layer(state.states, attention_mask=later[None, None], position_ids=places, position_embeddings=turned)
        return replace(state, states=made[0] if isinstance(made, tuple) else made)

    def scores(self, done: int, state: Rows) -> Tensor:
        if self.yes_no:
            last = self.parts.norm(state.states[torch.arange(len(state.lengths)), state.lengths - 1])
            logits = (last @ self.parts.rows(self._answers).T).float()
            judged: Tensor = logits[:, 0] - logits[:, 1]
            return judged
        found = [self._likelihood(state, place) for place in range(len(state.lengths))]
        return torch.stack(found)

    def _likelihood(self, state: Rows, place: int) -> Tensor:
        start, stop = state.spans[place].tolist()
        if stop <= start:
            return torch.tensor(0.0)
        read = self.parts.norm(state.states[place, start - 1 : stop - 1])
        found: Tensor = self.parts.log_probability(read, state.ids[place, start:stop])
        return found.mean()

    def close(self) -> None:
        self.parts.weights.close()


class DecoderParts(Protocol):
    """The pieces of a decoder, wherever their weights are."""

    count: int
    weights: Resident | Streamed
    norm: nn.Module
    rotary: nn.Module

    def embed(self, ids: Tensor) -> Tensor:
        """(n, length, width) of the tokens."""
        ...

    def rows(self, tokens: Sequence[int]) -> Tensor:
        """(tokens, width) of the output matrix."""
        ...

    def log_probability(self, states: Tensor, tokens: Tensor) -> Tensor:
        """(n,) log probability of each token after its state, in nats."""
        ...


def pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """(n, longest) ids padded on the right with 0, and (n,) lengths."""
    longest = max(len(row) for row in rows)
    padded = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    return padded, torch.tensor([len(row) for row in rows])
