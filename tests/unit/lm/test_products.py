"""bf16 products on a processor without bf16: what fp32 gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ctxmem.lm import products
from ctxmem.lm.products import FEW, product, widen


@pytest.fixture
def old_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this one is."""
    monkeypatch.setattr(products, "has_bf16", lambda: False)


def matrices(rows: int, *, width: int = 64, out: int = 96) -> tuple[Tensor, Tensor, Tensor]:
    """States, weights and bias."""
    torch.manual_seed(rows)
    states, weight, bias = torch.randn(rows, width), torch.randn(out, width), torch.randn(out)
    return states.bfloat16(), weight.bfloat16(), bias.bfloat16()


@pytest.mark.usefixtures("old_processor")
class TestProduct:
    @pytest.mark.parametrize("part", [2**22, 64 * 10])
    def test_sums_are_those_of_fp32(self, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """With all weights at once, and with some at a time."""
        monkeypatch.setattr(products, "PART", part)
        states, weight, bias = matrices(24)
        wide = linear(states.float(), weight.float()).bfloat16()
        assert product(states, weight).equal(wide)
        assert product(states, weight, bias).equal(wide + bias)
        assert product(states.view(2, 12, 64), weight).equal(wide.view(2, 12, 96))

    def test_few_rows_and_other_formats_as_they_are(self) -> None:
        states, weight, bias = matrices(FEW)
        assert product(states, weight, bias).equal(linear(states, weight, bias))
        wide = states.float().repeat(4, 1), weight.float(), bias.float()
        assert product(*wide).equal(linear(*wide))


@pytest.mark.usefixtures("old_processor")
def test_a_widened_model() -> None:
    """Its linear layers, and what hangs on them."""
    model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 8, bias=False)).bfloat16()
    seen: list[nn.Module] = []
    model[2].register_forward_hook(lambda module, *_: seen.append(module))
    states = matrices(24)[0]
    with torch.inference_mode():
        narrow = model(states)
        widen(model)
        wide = model(states)
        first = product(states, model[0].weight, model[0].bias).relu()
    assert wide.equal(product(first, model[2].weight))
    assert torch.allclose(wide.float(), narrow.float(), atol=0.1)
    assert seen == [model[2]] * 2


def test_a_processor_that_has_bf16_keeps_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "has_bf16", lambda: True)
    layer = nn.Linear(64, 96).bfloat16()
    widen(layer)
    states, weight, bias = matrices(24)
    assert type(layer) is nn.Linear
    assert product(states, weight, bias).equal(linear(states, weight, bias))
