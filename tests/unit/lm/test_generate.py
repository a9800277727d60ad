"""Chat replies with a cache per session."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from transformers import DynamicCache

from ctxmem.errors import ModelError
from ctxmem.lm.causal import CausalLM
from ctxmem.lm.generate import BLOCK, ChatModel
from ctxmem.lm.reply import Completion, Piece, PromptTooLong, Sampling
from ctxmem.lm.sessions import Past
from tests.unit.lm.conftest import Make

GREEDY = Sampling(max_tokens=12, temperature=0)


def reply(
    chat: ChatModel,
    prompt: list[int],
    sampling: Sampling = GREEDY,
    session: str | None = None,
    behind: Past | None = None,
) -> tuple[str, Completion, list[Piece]]:
    """A whole reply: its text, how it ended, its pieces."""
    pieces: list[Piece] = []
    steps = chat.reply(prompt, sampling, session=session, behind=behind)
    while True:
        try:
            pieces.append(next(steps))
        except StopIteration as done:
            return "".join(piece.text for piece in pieces), done.value, pieces


def prompt(length: int, *, seed: int = 0) -> list[int]:
    """Random bytes as token ids."""
    torch.manual_seed(seed)
    return torch.randint(97, 122, (length,)).tolist()


@pytest.fixture
def chat(lm: CausalLM) -> ChatModel:
    return ChatModel(lm)


class TestBehind:
    def past(self, lm: CausalLM, ids: list[int], name: str = "m") -> Past:
        """What a model has after some tokens."""
        cache = DynamicCache()
        with torch.inference_mode():
            lm.model(input_ids=torch.tensor([ids]), past_key_values=cache)
        return Past(name, cache)

    def test_a_prompt_behind_a_cache_is_the_rest_of_one_prompt(self, chat: ChatModel, lm: CausalLM) -> None:
        whole = prompt(80)
        assert reply(chat, whole[50:], behind=self.past(lm, whole[:50]))[0] == reply(chat, whole)[0]

    def test_cache_and_prompt_share_the_window(self, make: Make) -> None:
        """A cache that fills it leaves no room."""
        lm = make(window=64)
        with pytest.raises(PromptTooLong, match="70 tokens"):
            next(ChatModel(lm).reply(prompt(10), GREEDY, behind=self.past(lm, prompt(60))))

    def test_the_prefix_behind_a_cache_is_kept(self, make: Make) -> None:
        """With the same bits as read afresh; one of another past, or of none, is not taken for it."""
        lm = make()
        lm.model.bfloat16()
        chat, told, turn = ChatModel(lm), replace(GREEDY, top_logprobs=3), prompt(2 * BLOCK + 90)
        before = prompt(36, seed=5)
        reply(chat, turn[: BLOCK + 40], told, session="s", behind=self.past(lm, before))
        kept = reply(chat, turn, told, session="s", behind=self.past(lm, before))
        fresh = reply(ChatModel(lm), turn, told, behind=self.past(lm, before))
        assert kept[1].cached_tokens == BLOCK
        assert [piece.token for piece in kept[2] if piece.token] == [p.token for p in fresh[2] if p.token]
        assert reply(chat, turn, session="s", behind=self.past(lm, before, "later"))[1].cached_tokens == 0
        assert reply(chat, turn, session="s")[1].cached_tokens == 0


class TestReuse:
    def test_a_reused_cache_gives_what_a_fresh_one_gives(self, chat: ChatModel, lm: CausalLM) -> None:
        """Over growing turns, an edited history and a fork, replies equal those of a model that keeps nothing."""
        history = prompt(300)
        turns = [history, history + prompt(400, seed=1), history[:280] + prompt(500, seed=2), history[:100]]
        for turn in turns:
            kept, fresh = reply(chat, turn, session="s"), reply(ChatModel(lm), turn)
            assert kept[0] == fresh[0]
            assert [piece.token for piece in kept[2] if piece.token] == [p.token for p in fresh[2] if p.token]

    def test_the_same_bits_in_bf16(self, make: Make) -> None:
        """Even where rounding depends on how many tokens are read together, a reused cache changes no probability."""
        lm = make()
        lm.model.bfloat16()
        chat, told = ChatModel(lm), replace(GREEDY, top_logprobs=3)
        turn = prompt(2 * BLOCK + 90)
        reply(chat, turn[: BLOCK + 40], told, session="s")
        kept, fresh = reply(chat, turn, told, session="s"), reply(ChatModel(lm), turn, told)
        assert kept[1].cached_tokens == BLOCK
        assert [piece.token for piece in kept[2] if piece.token] == [p.token for p in fresh[2] if p.token]

    def test_cached_tokens_are_reported_in_whole_blocks(self, chat: ChatModel) -> None:
        """The second turn reads only what comes after the last whole block that both share."""
        turn = prompt(3 * BLOCK + 10)
        assert reply(chat, turn, session="s")[1].cached_tokens == 0
        assert reply(chat, turn + prompt(20), session="s")[1].cached_tokens == 3 * BLOCK
        assert reply(chat, turn + prompt(20), session="other")[1].cached_tokens == 0
        assert reply(chat, turn + prompt(20))[1].cached_tokens == 0

    def test_a_reply_that_was_cut_off_changes_no_later_one(self, chat: ChatModel, lm: CausalLM) -> None:
        """A client that goes away while its prompt is read leaves the session's cache as it was."""
        turn = prompt(2 * BLOCK + 5)
        reply(chat, turn, session="s")
        for steps in (1, 2, 4):
            cut = chat.reply(turn + prompt(700, seed=3), GREEDY, session="s")
            for _ in range(steps):
                next(cut)
            cut.close()
        assert reply(chat, turn, session="s")[0] == reply(ChatModel(lm), turn)[0]

    def test_a_reply_that_failed_changes_no_later_one(self, make: Make) -> None:
        """Weights that break in the middle of a reply are an error of that reply alone."""
        lm = make()
        chat, turn = ChatModel(lm), prompt(BLOCK + 5)
        expected = reply(chat, turn, session="s")[0]
        weight = lm.model.lm_head.weight.clone()
        steps = chat.reply(turn, GREEDY, session="s")
        next(steps)
        with torch.no_grad():
            lm.model.lm_head.weight.fill_(math.nan)
        with pytest.raises(ModelError, match="not finite"):
            list(steps)
        with torch.no_grad():
            lm.model.lm_head.weight.copy_(weight)
        assert reply(chat, turn, session="s")[0] == expected


class TestSampling:
    def test_temperature_0_repeats_itself(self, chat: ChatModel) -> None:
        """The likeliest token, always."""
        assert reply(chat, prompt(9))[0] == reply(chat, prompt(9))[0]

    def test_a_seed_repeats_a_draw(self, chat: ChatModel) -> None:
        """Equal seeds draw equally, others not."""
        drawn = [reply(chat, prompt(9), Sampling(max_tokens=12, seed=seed))[0] for seed in (1, 1, 2)]
        assert drawn[0] == drawn[1] != drawn[2]

    def test_a_tiny_top_p_is_greedy(self, chat: ChatModel) -> None:
        """At least one token is always left to draw."""
        drawn = Sampling(max_tokens=12, top_p=1e-9, temperature=2.0)
        assert reply(chat, prompt(9), drawn)[0] == reply(chat, prompt(9))[0]

    def test_a_tiny_temperature_is_greedy(self, chat: ChatModel) -> None:
        """A temperature near zero overflows nothing."""
        assert reply(chat, prompt(9), replace(GREEDY, temperature=1e-6))[0] == reply(chat, prompt(9))[0]

    def test_log_probabilities_are_those_of_the_model(self, chat: ChatModel, lm: CausalLM) -> None:
        """The first token's alternatives equal a plain pass over the prompt."""
        *_, pieces = reply(chat, prompt(9), replace(GREEDY, top_logprobs=2))
        token = next(piece.token for piece in pieces if piece.token)
        with torch.inference_mode():
            expected = torch.log_softmax(lm.model(torch.tensor([prompt(9)])).logits[0, -1], dim=0).topk(2)
        assert [id for id, _ in token.top] == expected.indices.tolist()
        assert [value for _, value in token.top] == pytest.approx(expected.values.tolist(), abs=1e-4)
        assert token.logprob == token.top[0][1]


class TestEnd:
    def test_a_limit_ends_a_reply_with_length(self, chat: ChatModel) -> None:
        """As many tokens as allowed, and the usage says so."""
        _, completion, _ = reply(chat, prompt(9), replace(GREEDY, max_tokens=3))
        assert completion == Completion("length", prompt_tokens=9, completion_tokens=3, cached_tokens=0)

    def test_the_end_token_ends_a_reply_with_stop(self, make: Make) -> None:
        """The end token is no part of the reply."""
        lm = make()
        told = reply(ChatModel(lm), prompt(9))[2]
        third = [piece.token.id for piece in told if piece.token][2]
        lm.model.generation_config.eos_token_id = [third]
        text, completion, _ = reply(ChatModel(lm), prompt(9))
        assert completion.finish_reason == "stop"
        assert completion.completion_tokens <= 2
        assert len(text) <= 2

    def test_a_stop_string_ends_a_reply_before_itself(self, chat: ChatModel) -> None:
        """Nothing of the stop string is sent."""
        text = reply(chat, prompt(9))[0]
        stopped, completion, _ = reply(chat, prompt(9), replace(GREEDY, stop=(text[4:6],)))
        assert completion.finish_reason == "stop"
        assert stopped == text[: text.find(text[4:6])]

    def test_the_window_ends_a_reply(self, make: Make) -> None:
        """Without a limit, a reply goes on until the window is full."""
        lm = make(window=32)
        lm.model.generation_config.eos_token_id = []
        completion = reply(ChatModel(lm), prompt(20), Sampling(temperature=0))[1]
        assert (completion.finish_reason, completion.completion_tokens) == ("length", 12)

    @pytest.mark.parametrize("length", [32, 33])
    def test_a_prompt_that_fills_the_window_is_refused(self, make: Make, length: int) -> None:
        """The error is one that OpenAI clients know, and names both sizes."""
        with pytest.raises(PromptTooLong, match=f"{length} tokens.*32 tokens") as raised:
            reply(ChatModel(make(window=32)), prompt(length))
        assert raised.value.code == "context_length_exceeded"


class TestMemory:
    def test_idle_sessions_are_forgotten_beyond_the_bound(self, lm: CausalLM) -> None:
        """Two sessions fit; the one used longest ago goes when a third comes."""
        turn = prompt(BLOCK + 5)
        one = BLOCK * 2 * 2 * 2 * 8 * 4  # tokens, layers, keys and values, heads, head size, bytes
        chat = ChatModel(lm, kv_bytes=2 * one)
        for session in ("a", "b", "c"):
            reply(chat, turn, session=session)
        assert [reply(chat, turn, session=session)[1].cached_tokens for session in ("c", "b", "a")] == [BLOCK, BLOCK, 0]

    def test_a_session_can_be_forgotten(self, chat: ChatModel) -> None:
        """What is erased elsewhere is erased here."""
        turn = prompt(BLOCK + 5)
        reply(chat, turn, session="a")
        chat.forget("a")
        assert reply(chat, turn, session="a")[1].cached_tokens == 0
