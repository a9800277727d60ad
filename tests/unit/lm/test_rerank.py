"""The layer-by-layer engine: equal to the plain forward however it runs, and sane on bad input."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from ctxmem import models
from ctxmem.errors import InvalidInput, ModelError, Unavailable
from ctxmem.lm.loading import loading_alone
from ctxmem.lm.rerank.decoder import ResidentDecoder, StreamedDecoder
from ctxmem.lm.rerank.engine import Options, Outcome, rank
from ctxmem.lm.rerank.interaction import Interaction
from ctxmem.lm.rerank.layered import CrossEncoder, Decoder
from ctxmem.lm.rerank.reranker import Reranker
from ctxmem.lm.rerank.rows import Row, read_rows, token_rarity
from ctxmem.lm.rerank.shipped import InteractionModel, write
from ctxmem.lm.rerank.training import Recipe, Training, trained_names
from ctxmem.lm.text import Tokenizer
from ctxmem.retrieval.pruning import Prism, calibrate
from ctxmem.stores.memory import MemoryCache

QUERY = "who wrote Hamlet?"
TEXTS = [
    "Hamlet is a tragedy by William Shakespeare.",
    "Bread is made of flour and water.",
    "The sea is wide and blue. " * 30,
    "ハムレット 😀 \ud800",
    "A play about the prince of Denmark.",
    "Bread is made of flour and water.",
]
WAYS = [Options(), Options(chunk_tokens=40), Options(chunk_tokens=40, spill_bytes=0)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(models.locate("minilm"))


@pytest.fixture(scope="module")
def untrained() -> Interaction:
    with loading_alone():
        body = AutoModel.from_pretrained(models.locate("minilm"))
    return Interaction(body, torch.full((body.config.vocab_size,), 3.0))


@pytest.fixture(scope="module")
def weights(untrained: Interaction, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model before training, as a file."""
    path = tmp_path_factory.mktemp("rerank") / "weights.safetensors"
    learned = trained_names(untrained)
    kept = {name: value for name, value in untrained.state_dict().items() if name in learned}
    write(kept | {"frequency": untrained.state_dict()["frequency"]}, path, card={"recipe": "none"})
    return path


@pytest.fixture(scope="module")
def model(weights: Path) -> InteractionModel:
    return InteractionModel(weights)


def near(left: Outcome, right: Outcome, within: float = 1e-4) -> bool:
    return all(abs(a - b) <= within or a == b for a, b in zip(left.scores, right.scores, strict=True))


class TestSameScoresHowever:
    """Chunks, spills and streams change memory, never a score."""

    @pytest.mark.parametrize("options", WAYS)
    @pytest.mark.parametrize("stream", [False, True])
    def test_interaction(self, weights: Path, model: InteractionModel, options: Options, stream: bool) -> None:
        other = InteractionModel(weights, stream=stream)
        assert near(rank(other, QUERY, TEXTS, options=options), rank(model, QUERY, TEXTS))
        other.close()

    def test_the_lower_layers_are_the_bi_encoders(self, untrained: Interaction, tokenizer: Tokenizer) -> None:
        """Before the texts see each other, each has the states that it has alone."""
        with loading_alone():
            body = AutoModel.from_pretrained(models.locate("minilm"), output_hidden_states=True)
        ids = tokenizer.encode([TEXTS[0]])[0].ids
        with torch.inference_mode():
            alone = body(torch.tensor([[101, *ids, 102]])).hidden_states[2][0]
            pairs = untrained.begin(tokenizer.encode([QUERY])[0].ids, [ids, ids])
            pairs = untrained.advance(1, untrained.advance(0, pairs))
        assert torch.allclose(pairs.states[1, pairs.asked :], alone, atol=1e-4)

    @pytest.mark.parametrize("options", WAYS)
    def test_cross_encoder_equals_its_forward(self, tokenizer: Tokenizer, options: Options) -> None:
        torch.manual_seed(1)
        config = BertConfig(
            num_hidden_layers=3, hidden_size=48, num_attention_heads=4, intermediate_size=64, num_labels=1
        )
        plain = BertForSequenceClassification(config).eval()
        cross = CrossEncoder(plain, tokenizer, name="tiny")
        found = rank(cross, QUERY, TEXTS, options=options).scores
        encoded = cross.encode(QUERY, TEXTS)
        for place, row in enumerate(encoded.rows):
            start = encoded.spans[place][0]
            kinds = [[0] * start + [1] * (len(row) - start)]
            with torch.inference_mode():
                logit = plain(torch.tensor([row]), token_type_ids=torch.tensor(kinds)).logits[0, 0]
            assert abs(float(logit) - found[place]) <= 1e-4

    @pytest.mark.parametrize("yes_no", [False, True])
    def test_decoder_equals_its_forward(self, tokenizer: Tokenizer, yes_no: bool, tmp_path: Path) -> None:
        torch.manual_seed(1)
        config = LlamaConfig(
            vocab_size=30522,
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            architectures=["LlamaForCausalLM"],
        )
        plain = LlamaForCausalLM(config).bfloat16().eval()
        plain.save_pretrained(tmp_path)
        resident = Decoder(ResidentDecoder(plain), tokenizer, name="tiny", yes_no=yes_no)
        streamed = Decoder(StreamedDecoder(tmp_path), tokenizer, name="tiny", yes_no=yes_no)
        texts = [text for text in TEXTS if "\ud800" not in text]
        outcome = rank(resident, QUERY, texts)
        assert near(rank(streamed, QUERY, texts, options=WAYS[1]), outcome, within=0.05)
        assert near(rank(streamed, QUERY, texts), outcome, within=0.05)  # a second time: buffers are used again
        streamed.close()
        row = resident.encode(QUERY, texts).rows[0]
        with torch.inference_mode():
            logits = plain(torch.tensor([row])).logits[0].float()
        if yes_no:
            yes, no = resident._answers
            expected = float(logits[-1, yes] - logits[-1, no])
        else:
            start, stop = resident.encode(QUERY, texts).spans[0]
            logs = logits[start - 1 : stop - 1].log_softmax(-1)
            expected = float(logs.gather(-1, torch.tensor(row[start:stop])[:, None]).mean())
        assert abs(outcome.scores[0] - expected) <= 0.05


class TestPruning:
    def test_pruned_work_is_less_and_the_result_full(self, model: InteractionModel) -> None:
        outcome = rank(model, QUERY, TEXTS, k=2, policy=Prism(cv=0.01))
        assert outcome.cost < 1.0
        assert sorted(outcome.order) == list(range(len(TEXTS)))
        assert outcome.order[0] == 0

    def test_a_calibrated_policy_is_used_and_promises(self, model: InteractionModel) -> None:
        reranker = Reranker(model)
        asked = [(f"{word} of Denmark", TEXTS) for word in ("prince", "play", "bread", "sea")]
        reranker.policy = calibrate(reranker.traces(asked) * 10, k=2, alpha=0.2, model=model.name)
        found = reranker.rank("prince of Denmark", TEXTS, k=2)
        assert set(found.order) == set(Reranker(model).rank("prince of Denmark", TEXTS, k=2).order)
        if found.cost_fraction < 1:
            assert found.guarantee == 0.2


class TestBadInput:
    def test_empty_documents_rank_last_and_cost_nothing(self, model: InteractionModel) -> None:
        outcome = rank(model, QUERY, ["", *TEXTS, " \n"], k=3, policy=Prism(cv=0.01))
        assert outcome.scores[0] == -math.inf
        assert set(outcome.order[-2:]) == {0, len(TEXTS) + 1}

    def test_no_documents(self, model: InteractionModel) -> None:
        assert rank(model, QUERY, []).order == ()
        assert Reranker(model).rank(QUERY, [], k=3).order == ()

    def test_only_empty_documents(self, model: InteractionModel) -> None:
        assert rank(model, QUERY, ["", " "]).order == (0, 1)

    def test_k_above_the_number_of_documents(self, model: InteractionModel) -> None:
        assert len(Reranker(model).rank(QUERY, TEXTS, k=100).order) == len(TEXTS)

    @pytest.mark.parametrize("k", [0, -1])
    def test_k_below_one(self, model: InteractionModel, k: int) -> None:
        with pytest.raises(InvalidInput):
            Reranker(model).rank(QUERY, TEXTS, k=k)

    def test_scores_that_are_no_numbers_rank_last(self, model: InteractionModel) -> None:
        assert rank(Broken(model), QUERY, TEXTS[:3]).order == (1, 2, 0)

    def test_duplicates_score_alike_and_keep_their_order(self, model: InteractionModel) -> None:
        outcome = rank(model, QUERY, TEXTS)
        assert abs(outcome.scores[1] - outcome.scores[5]) < 1e-4

    def test_a_huge_document_is_cut(self, model: InteractionModel) -> None:
        assert math.isfinite(rank(model, QUERY, ["word " * 1_000_000]).scores[0])

    @pytest.mark.parametrize("query", ["", "  ", "x" * 20_001, 7, None])
    def test_no_query(self, model: InteractionModel, query: str) -> None:
        with pytest.raises(InvalidInput):
            Reranker(model).rank(query, TEXTS)

    @pytest.mark.parametrize("texts", ["one text", [None], [b"bytes"]])
    def test_no_texts(self, model: InteractionModel, texts: Sequence[str]) -> None:
        with pytest.raises(InvalidInput):
            Reranker(model).rank(QUERY, texts)


class TestHardTimes:
    def test_a_passed_deadline_gives_the_order_so_far(self, model: InteractionModel) -> None:
        found = Reranker(model).rank(QUERY, TEXTS, k=2, deadline=0.0)
        assert not found.complete
        assert found.order == (0, 1)
        with pytest.raises(Unavailable):
            Reranker(model).score(QUERY, TEXTS, deadline=0.0)

    def test_many_threads_get_the_same_scores(self, weights: Path) -> None:
        reranker = Reranker(InteractionModel(weights, stream=True))
        found: list[list[float]] = []
        threads = [threading.Thread(target=lambda: found.append(reranker.score(QUERY, TEXTS))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert all(one == found[0] for one in found)
        reranker.close()

    def test_weights_that_change_under_a_stream_are_noticed(self, tmp_path: Path) -> None:
        config = LlamaConfig(hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
        LlamaForCausalLM(config).bfloat16().save_pretrained(tmp_path)
        parts = StreamedDecoder(tmp_path)
        (tmp_path / "model.safetensors").write_bytes(b"cut short")
        with pytest.raises(ModelError, match="changed"):
            parts.embed(torch.tensor([[1]]))
        parts.weights.close()

    def test_a_missing_model_says_so(self) -> None:
        with pytest.raises(ModelError):
            Reranker.load("no-such-model")


class Broken:
    """A model whose first candidate never gets a number."""

    def __init__(self, inner: InteractionModel) -> None:
        self._inner = inner
        self.name, self.layers, self.exits = inner.name, inner.layers, inner.exits
        self.encode, self.begin, self.advance, self.close = inner.encode, inner.begin, inner.advance, inner.close

    def scores(self, done: int, state: object) -> torch.Tensor:
        ids = self._inner.scores(done, state).clone()  # type: ignore[arg-type]
        return torch.where(ids == ids.max(), torch.nan, ids)


def test_scores_come_from_the_cache(model: InteractionModel) -> None:
    """What was scored before is not run again: a passed deadline does not matter."""
    reranker = Reranker(model, cache=MemoryCache())
    first = reranker.score(QUERY, TEXTS[:2])
    assert reranker.score(QUERY, TEXTS[:2], deadline=0.0) == first


class TestTraining:
    def rows(self, tokenizer: Tokenizer) -> list[Row]:
        right = [f"Hamlet number {at} is a play by Shakespeare." for at in range(4)]
        wrong = [f"Bread {at} is made of flour." for at in range(14)]
        ids = [one.ids for one in tokenizer.encode([QUERY, *right, *wrong])]
        return [Row("toy", ids[0], (ids[1 + at],), tuple(ids[5:])) for at in range(4)]

    def test_it_learns_resumes_and_leaves_the_lower_layers(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        rows = self.rows(tokenizer)
        recipe = Recipe(seconds=0, epochs=1, batch=2, longest=32)
        model = self.fresh(rows)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        Training(model, rows, rows, folder=tmp_path, recipe=recipe).run()
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert changed
        assert changed <= trained_names(model)
        again = Training(self.fresh(rows), rows, rows, folder=tmp_path, recipe=recipe)
        assert again.step == 2
        assert torch.equal(again.model.gates, model.gates)
        log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in log] == [0, 2]

    def fresh(self, rows: list[Row]) -> Interaction:
        with loading_alone():
            body = AutoModel.from_pretrained(models.locate("minilm"))
        return Interaction(body, token_rarity(rows, body.config.vocab_size))

    @pytest.mark.parametrize("line", ["", "{", '{"query": 1, "positives": [], "negatives": []}', "[]"])
    def test_rows_that_are_none_are_named(self, tokenizer: Tokenizer, tmp_path: Path, line: str) -> None:
        path = tmp_path / "rows.jsonl"
        path.write_text(line + "\n")
        with pytest.raises(InvalidInput, match="rows"):
            read_rows(path, tokenizer, longest=8)
