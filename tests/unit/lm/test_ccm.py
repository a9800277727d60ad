"""Compressed context memory: what must be equal is equal, and what does not fit is refused."""

from __future__ import annotations

import random
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from ctxmem.errors import InvalidInput, ModelError
from ctxmem.lm.ccm.adapter import Adapter, LowRank
from ctxmem.lm.ccm.blobs import pack, unpack
from ctxmem.lm.ccm.memory import Memory, MemoryModel
from ctxmem.lm.ccm.parallel import lay_out, read
from ctxmem.lm.ccm.update import Mode, Update
from tests.unit.lm.conftest import random_model

SINK = 256
MODES = get_args(Mode)


def steps(*lengths: int, seed: int = 1) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(256) for _ in range(length)] for length in lengths]


def trained(model: LlamaForCausalLM, *, seed: int = 3) -> Adapter:
    """An adapter that does something, as after training."""
    torch.manual_seed(seed)
    adapter = Adapter(model, most=4, rank=4)
    for change in adapter.changes:
        assert isinstance(change, LowRank)
        torch.nn.init.normal_(change.up, std=0.3)
    return adapter.requires_grad_(False)


@pytest.fixture
def memory_model() -> MemoryModel:
    model = random_model().requires_grad_(False)
    return MemoryModel(model, trained(model), sink=SINK)


def states_after(model: MemoryModel, memory: Memory, ids: list[int]) -> Tensor:
    with torch.no_grad():
        return model.model.base_model(
            input_ids=torch.tensor([ids]), past_key_values=model.cache(memory)
        ).last_hidden_state[0]


class TestUpdate:
    @given(st.sampled_from(MODES), st.integers(1, 4), st.integers(0, 12))
    def test_weights_are_those_of_the_rule(self, mode: Mode, bank: int, count: int) -> None:
        """Each group is a mean: its weights are positive and sum to one."""
        for t, groups in enumerate(Update(mode, bank=bank).weights(count)):
            assert groups.shape == (Update(mode, bank=bank).groups(t), count)
            assert torch.allclose(groups.sum(1), torch.ones(len(groups)))
            assert (groups >= 0).all()
            assert not groups[:, t:].any()

    def test_a_merge_is_the_mean_of_all_steps(self) -> None:
        """Equal weights, to the last step."""
        assert torch.allclose(Update("merge").weights(5)[5], torch.full((1, 5), 0.2))

    def test_a_hybrid_keeps_the_newest_and_the_mean_of_the_rest(self) -> None:
        """First the mean, then the bank in order."""
        third = 1 / 3
        expected = [[third, third, third, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
        assert torch.allclose(Update("hybrid", bank=2).weights(5)[5], torch.tensor(expected))

    @pytest.mark.parametrize("knobs", [{"mode": "sum"}, {"bank": 0}, {"rate": 0.0}, {"rate": 1.5}])
    def test_wrong_numbers(self, knobs: dict[str, object]) -> None:
        with pytest.raises(InvalidInput):
            Update(**knobs)  # type: ignore[arg-type]


class TestEqualities:
    @pytest.mark.parametrize("mode", MODES)
    @settings(max_examples=8, deadline=None)
    @given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=3), st.integers(1, 4))
    def test_parallel_is_recurrent(self, mode: Mode, lengths: list[list[int]], tokens: int) -> None:
        """The training forward gives each text the states that it gets step by step, padded or not."""
        base = random_model().requires_grad_(False)
        model, update = MemoryModel(base, trained(base), sink=SINK), Update(mode, bank=2)
        talks = [steps(*row, seed=at) for at, row in enumerate(lengths)]
        layout = lay_out(talks, update, tokens=tokens, sink=SINK)
        with torch.no_grad():
            together = read(base, model.adapter, layout, model.rotation)
        for at, talk in enumerate(talks):
            memory = model.empty(update, tokens=tokens)
            for step, ids in enumerate(talk):
                here = (layout.segment[at] == step) & (layout.kinds[at] < 0)
                torch.testing.assert_close(together[at][here], states_after(model, memory, ids), rtol=1e-4, atol=1e-4)
                memory = model.compress(memory, ids)

    def test_memories_made_on_their_own_join_in_any_order(self, memory_model: MemoryModel) -> None:
        """And are what the layout without a chain gives."""
        talk = steps(5, 7, 3, 6)
        layout = lay_out([talk], Update(), tokens=3, sink=SINK, chain=False)
        with torch.no_grad():
            together = read(memory_model.model, memory_model.adapter, layout, memory_model.rotation)
        alone = [memory_model.compress(memory_model.empty(tokens=3), ids) for ids in talk[:3]]
        found = states_after(memory_model, memory_model.join(alone), talk[3])
        torch.testing.assert_close(together[0][layout.segment[0] == 3], found, rtol=1e-4, atol=1e-4)
        assert memory_model.join(alone[::-1]).slots == 9

    def test_without_compression_tokens_the_base_is_untouched(self, memory_model: MemoryModel) -> None:
        """Bit for bit, hooks or not."""
        ids = torch.tensor(steps(20))
        with torch.no_grad():
            hooked = memory_model.model(input_ids=ids).logits
            memory_model.adapter.remove()
            assert torch.equal(hooked, memory_model.model(input_ids=ids).logits)
            assert torch.equal(hooked, random_model()(input_ids=ids).logits)

    @pytest.mark.parametrize("mode", MODES)
    def test_stored_memory_is_live_memory(self, memory_model: MemoryModel, mode: Mode) -> None:
        """Also in the steps after it was read back."""
        first, second, asked = steps(9, 5, 4)
        live = memory_model.compress(memory_model.empty(Update(mode)), first)
        kept = unpack(pack(live), memory_model.maker)
        assert torch.equal(kept.states, live.states)
        one, other = memory_model.compress(live, second), memory_model.compress(kept, second)
        assert torch.equal(states_after(memory_model, one, asked), states_after(memory_model, other, asked))

    def test_int8_takes_a_third_and_changes_little(self, memory_model: MemoryModel) -> None:
        """Of fp32; the error of a vector is within its scale."""
        memory = memory_model.empty()
        for ids in steps(*[8] * 20):
            memory = memory_model.compress(memory, ids)
        small = pack(memory, "int8")
        assert len(small) < 0.4 * len(pack(memory))
        off = (unpack(small, memory_model.maker).states - memory.states).abs().amax(-1)
        assert (off <= memory.states.abs().amax(-1) / 127).all()

    def test_reuse_changes_nothing(self, memory_model: MemoryModel) -> None:
        """Reading and writing behind a memory leave it as it is."""
        memory = memory_model.compress(memory_model.empty(), steps(9)[0])
        before = memory.states.clone()
        once = states_after(memory_model, memory, [1, 2, 3])
        memory_model.compress(memory, [4, 5])
        assert torch.equal(once, states_after(memory_model, memory, [1, 2, 3]))
        assert torch.equal(before, memory.states)

    def test_batched_is_single(self, memory_model: MemoryModel) -> None:
        """Two sessions with different slot counts in one batch, the shorter padded on the left."""
        model, asked = memory_model, [[5, 6, 7], [8, 9, 10]]
        few = model.compress(model.empty(tokens=2), steps(6)[0])
        many = model.compress(model.compress(model.empty(tokens=2), steps(7)[0]), steps(4)[0])
        cache, mask = model.batch([few, many])
        places = mask.cumsum(1) - 1
        with torch.no_grad():
            both = model.model.base_model(
                input_ids=torch.tensor(asked),
                past_key_values=cache,
                attention_mask=torch.cat((mask, torch.ones(2, 3, dtype=torch.long)), dim=1),
                position_ids=places[:, -1:] + 1 + torch.arange(3),
            ).last_hidden_state
        for at, memory in enumerate((few, many)):
            torch.testing.assert_close(both[at], states_after(model, memory, asked[at]), rtol=1e-4, atol=1e-4)

    def test_another_family(self) -> None:
        """Qwen2: biases in its projections, its own configuration."""
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        config = Qwen2Config(vocab_size=258, num_key_value_heads=2, initializer_range=0.3, pad_token_id=0, **sizes)
        base = Qwen2ForCausalLM(config).eval().requires_grad_(False)
        model, talk = MemoryModel(base, trained(base), sink=SINK), steps(6, 4, 5)
        layout = lay_out([talk], Update("merge"), tokens=2, sink=SINK)
        with torch.no_grad():
            together = read(base, model.adapter, layout, model.rotation)
        memory = model.compress(model.compress(model.empty(Update("merge"), tokens=2), talk[0]), talk[1])
        found = states_after(model, memory, talk[2])
        torch.testing.assert_close(together[0][layout.segment[0] == 2], found, rtol=1e-4, atol=1e-4)

    def test_eager_attention_agrees(self) -> None:
        """Its mask is added, not looked up."""
        talk, found = steps(6, 4, 5), []
        for attention in ("sdpa", "eager"):
            base = random_model().requires_grad_(False)
            base.set_attn_implementation(attention)
            model = MemoryModel(base, trained(base), sink=SINK)
            with torch.no_grad():
                layout = lay_out([talk], Update(), tokens=2, sink=SINK)
                found.append(read(base, model.adapter, layout, model.rotation))
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


class TestBadInput:
    def test_another_models_memory(self, memory_model: MemoryModel) -> None:
        """Neither read nor unpacked."""
        other = random_model(seed=5).requires_grad_(False)
        foreign = MemoryModel(other, trained(other), sink=SINK).empty()
        with pytest.raises(InvalidInput, match="made by"):
            memory_model.cache(foreign)
        with pytest.raises(InvalidInput, match="made by"):
            unpack(pack(foreign), memory_model.maker)

    @pytest.mark.parametrize("change", [lambda b: b[:-5], lambda b: b[:40], lambda b: b"", lambda b: b"\x00" * len(b)])
    def test_damaged_bytes(self, memory_model: MemoryModel, change: object) -> None:
        blob = pack(memory_model.compress(memory_model.empty(), [1, 2, 3]))
        with pytest.raises(InvalidInput):
            unpack(change(blob), memory_model.maker)  # type: ignore[operator]

    def test_states_that_are_no_numbers(self, memory_model: MemoryModel) -> None:
        memory = memory_model.compress(memory_model.empty(), [1, 2, 3])
        memory.states[0, 0, 0, 0, 0] = torch.nan
        with pytest.raises(InvalidInput, match="damaged"):
            unpack(pack(memory), memory_model.maker)

    def test_an_empty_step(self, memory_model: MemoryModel) -> None:
        with pytest.raises(InvalidInput):
            memory_model.compress(memory_model.empty(), [])

    def test_beyond_the_window(self) -> None:
        base = random_model(window=32).requires_grad_(False)
        model = MemoryModel(base, trained(base), sink=SINK)
        with pytest.raises(InvalidInput, match="32"):
            model.compress(model.empty(), [1] * 40)

    @pytest.mark.parametrize("tokens", [0, 5, -1])
    def test_more_slots_than_the_adapter_has(self, memory_model: MemoryModel, tokens: int) -> None:
        with pytest.raises(InvalidInput):
            memory_model.empty(tokens=tokens)

    @pytest.mark.parametrize("talks", [[], [[]], [[[1], []]]])
    def test_nothing_to_lay_out(self, talks: list[list[list[int]]]) -> None:
        with pytest.raises(InvalidInput):
            lay_out(talks, Update(), tokens=1, sink=SINK)

    def test_memories_that_do_not_join(self, memory_model: MemoryModel) -> None:
        with pytest.raises(InvalidInput):
            memory_model.join([])
        with pytest.raises(InvalidInput):
            memory_model.join([memory_model.empty(tokens=1), memory_model.empty(tokens=2)])

    def test_a_model_without_rotary_positions(self) -> None:
        from transformers import GPT2Config, GPT2LMHeadModel

        base = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=300))
        with pytest.raises(ModelError):
            Adapter(base)
