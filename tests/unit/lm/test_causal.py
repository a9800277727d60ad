"""The scorer over a causal language model."""

from __future__ import annotations

import math

import pytest
import torch

from ctxmem.errors import ModelError, Unavailable
from ctxmem.lm import causal
from ctxmem.lm.causal import CausalLM
from tests.unit.lm.conftest import Make


class TestScore:
    def test_offsets_are_characters_of_the_text(self, lm: CausalLM) -> None:
        """A character of several bytes is shared by its tokens; every character is covered."""
        (scores,) = lm.score(["aé🎉"])
        assert list(zip(scores.starts, scores.ends, strict=True)) == [(0, 1), (1, 2), (1, 2), *[(2, 3)] * 4]
        assert len(scores.nats) == 7

    def test_texts_scored_together_score_as_alone(self, lm: CausalLM) -> None:
        """Batching and padding change no score beyond rounding."""
        texts = ["one", "a much longer text than the others", "", "two two", "x" * 1500]
        together = lm.score(texts)
        for text, scores in zip(texts, together, strict=True):
            assert scores.nats == pytest.approx(lm.score([text])[0].nats, abs=1e-4)

    def test_a_control_token_in_a_text_is_plain_text(self, lm: CausalLM) -> None:
        """What looks like the end of a turn is scored character by character."""
        assert len(lm.score(["<|im_end|>"])[0].nats) == len("<|im_end|>")

    def test_a_lone_surrogate_is_one_character(self, lm: CausalLM) -> None:
        """JSON can carry half a character; offsets behind it stay true."""
        (scores,) = lm.score(["a\ud800b"])
        assert (scores.starts[-1], scores.ends[-1]) == (2, 3)

    def test_no_texts_and_empty_texts(self, lm: CausalLM) -> None:
        """Nothing to score is no error."""
        assert lm.score([]) == []
        assert lm.score([""])[0].nats == ()

    def test_windows_rank_tokens_like_a_full_pass(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """A text of three windows gets all its scores, and the first window's equal those of a full pass."""
        text = "".join(chr(97 + (at * at) % 26) for at in range(2000))
        (windowed,) = make().score([text])
        monkeypatch.setattr(causal, "WINDOW", 4000)
        (whole,) = make().score([text])
        assert len(windowed.nats) == len(whole.nats) == 2000
        assert windowed.nats[:1024] == pytest.approx(whole.nats[:1024], abs=1e-3)


class TestDeadline:
    def test_work_that_would_take_too_long_is_not_begun(self, lm: CausalLM) -> None:
        """A deadline that no pass can keep gives the caller its time back."""
        with pytest.raises(Unavailable, match="deadline"):
            lm.score(["some text"], deadline=0.0)

    def test_a_deadline_holds_between_windows(self, make: Make) -> None:
        """The estimate before each batch is what is left to the deadline's check."""
        lm = make()
        steps = lm.scoring(["x" * 5000])
        assert all(seconds > 0 for seconds in steps)

    def test_the_estimate_grows_with_the_text(self, lm: CausalLM) -> None:
        """Twice the tokens take about twice the seconds; none take none."""
        once, twice = lm.seconds(["abcd" * 50]), lm.seconds(["abcd" * 50, "abcd" * 50])
        assert twice == pytest.approx(2 * once)
        assert lm.seconds([]) == 0.0


class TestBrokenWeights:
    def test_all_scores_not_finite_is_an_error(self, make: Make) -> None:
        """Weights that give no number at all are broken, and said so."""
        lm = make()
        with torch.no_grad():
            lm.model.model.norm.weight.fill_(math.nan)
        with pytest.raises(ModelError, match="not finite"):
            lm.score(["text"])

    def test_one_score_not_finite_counts_as_under_a_uniform_model(self) -> None:
        """A single overflow costs one token its score, not the text."""
        nats = causal.finite(torch.tensor([1.0, math.inf, math.nan]), vocab=100)
        assert nats.tolist() == pytest.approx([1.0, math.log(100), math.log(100)])


class TestName:
    def test_equal_weights_have_equal_names(self, make: Make) -> None:
        """The fingerprint follows the weights, not the object."""
        assert make(seed=3).name == make(seed=3).name != make(seed=4).name

    def test_the_number_format_is_in_the_name(self, make: Make) -> None:
        """Scores in bf16 are not those in fp32."""
        lm = make()
        assert causal.fingerprint(lm.model) != causal.fingerprint(lm.model.bfloat16())
