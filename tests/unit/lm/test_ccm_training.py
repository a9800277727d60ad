"""Adapters of compressed context memory: how they are trained, and how they are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ctxmem.errors import InvalidInput, ModelError
from ctxmem.lm.ccm.adapter import Adapter
from ctxmem.lm.ccm.files import load_adapter, save_adapter
from ctxmem.lm.ccm.memory import MemoryModel
from ctxmem.lm.ccm.rows import Conversation
from ctxmem.lm.ccm.training import Recipe, Training, train_adapter
from tests.unit.lm.conftest import random_model
from tests.unit.lm.test_ccm import SINK, steps, trained


@pytest.fixture
def memory_model() -> MemoryModel:
    model = random_model().requires_grad_(requires_grad=False)
    return MemoryModel(model, trained(model), sink=SINK)


class TestFiles:
    @pytest.fixture
    def folder(self, memory_model: MemoryModel, tmp_path: Path) -> Path:
        model = memory_model
        save_adapter(model.adapter, model.model, tmp_path, sink=SINK, note={"data": "none"})
        return tmp_path

    def test_an_adapter_comes_back(self, folder: Path, memory_model: MemoryModel) -> None:
        """In bf16, on its own base in whatever number format."""
        base = random_model()
        adapter, sink = load_adapter(folder, base)
        assert sink == SINK
        assert torch.equal(adapter.tokens, memory_model.adapter.tokens.bfloat16().float())
        load_adapter(folder, random_model().bfloat16())

    def test_another_base_is_refused(self, folder: Path) -> None:
        with pytest.raises(ModelError, match="another base"):
            load_adapter(folder, random_model(seed=9))

    @pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
    def test_plain_peft_leaves_the_model_alone(self, folder: Path) -> None:
        """Where an ordinary LoRA load would change every token."""
        from peft import PeftModel

        ids = torch.tensor(steps(12))
        with torch.no_grad():
            plain = random_model()(input_ids=ids).logits
            assert torch.equal(PeftModel.from_pretrained(random_model(), folder)(input_ids=ids).logits, plain)

    def test_a_repository_on_the_hub_has_the_same_files(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Asked for by its id, with or without `hf:`; one that cannot be had is named."""
        asked: list[str] = []

        def fetched(name: str, **options: object) -> str:
            asked.append(name)
            return str(folder)

        with pytest.raises(ModelError, match="me/mine"):
            load_adapter("me/mine", random_model())
        monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
        for name in ("me/mine", "hf:me/mine"):
            assert load_adapter(name, random_model())[1] == SINK
        assert asked == ["me/mine"] * 2

    @pytest.mark.parametrize("name", ["ccm_config.json", "adapter_model.safetensors", "ccm_tokens.safetensors"])
    @pytest.mark.parametrize("content", [b"", b'{"format": 1}', None])
    def test_damage_is_noticed(self, folder: Path, name: str, content: bytes | None) -> None:
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
        with pytest.raises(ModelError):
            load_adapter(folder, random_model())

    def test_a_later_format_is_refused(self, folder: Path) -> None:
        path = folder / "ccm_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
        with pytest.raises(ModelError, match="format 2"):
            load_adapter(folder, random_model())


class TestTraining:
    def rows(self) -> list[Conversation]:
        return [Conversation(tuple(tuple(ids) for ids in steps(*[9] * 6, seed=at))) for at in range(6)]

    def training(self, folder: Path, *, count: int) -> Training:
        torch.manual_seed(0)
        base = random_model()
        model = MemoryModel(base, Adapter(base, most=2, rank=2), sink=SINK)
        recipe = Recipe(steps=count, rate=1e-2, batch=3, micro=2, sizes=(8,), tokens=(1, 2), every=2, most=64)
        return Training(model, self.rows(), folder=folder, recipe=recipe)

    def test_it_learns(self, tmp_path: Path) -> None:
        """The loss of a batch is lower after training than before; the base is as it was."""
        training = self.training(tmp_path, count=40)
        batch = training.draw(0)
        before = float(training.loss(batch.conversations, batch).detach())
        training.run()
        assert float(training.loss(batch.conversations, batch).detach()) < 0.95 * before
        base = dict(random_model().named_parameters())
        assert all(torch.equal(weights, base[name]) for name, weights in training.model.model.named_parameters())

    def test_a_resumed_run_is_an_uninterrupted_one(self, tmp_path: Path) -> None:
        """Weights, optimiser, rate and order: cut after its second checkpoint, bit for bit the same in the end."""
        whole = self.training(tmp_path / "whole", count=8)
        whole.run()

        def killed(stage: str, share: float) -> None:
            if share > 0.6:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.training(tmp_path / "cut", count=8).run(killed)
        resumed = self.training(tmp_path / "cut", count=8)
        assert resumed.step == 4
        resumed.run()
        for one, other in zip(whole.learned, resumed.learned, strict=True):
            assert torch.equal(one, other)

    def test_no_conversation_to_learn_from(self, tmp_path: Path, memory_model: MemoryModel) -> None:
        with pytest.raises(InvalidInput):
            Training(memory_model, [Conversation(((1, 2),))], folder=tmp_path, recipe=Recipe())

    def test_a_device_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="cannot train on 'abacus'"):
            train_adapter(tmp_path / "rows", tmp_path, model="smollm2", recipe=Recipe(), device="abacus")
