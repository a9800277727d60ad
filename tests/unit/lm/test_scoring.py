"""Self-information as functions of tensors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctxmem.lm.scoring import SUM_ROWS, Row, batches, padded, read, rows, self_information
from tests.unit.lm.conftest import random_model

LENGTHS = st.lists(st.integers(0, 60), max_size=8)


class TestRows:
    def test_the_worked_example(self) -> None:
        """Five tokens, a window of four and an overlap of two make two rows."""
        assert rows([5], window=4, overlap=2) == [Row(0, 0, 0, 4), Row(0, 2, 4, 5)]

    @given(LENGTHS, st.integers(2, 16), st.data())
    def test_each_token_is_scored_once_and_no_row_is_too_long(
        self, lengths: list[int], window: int, data: st.DataObject
    ) -> None:
        """The fresh parts of a text's rows partition it."""
        overlap = data.draw(st.integers(0, window - 1))
        cut = rows(lengths, window=window, overlap=overlap)
        scored = [(row.text, at) for row in cut for at in range(row.fresh, row.stop)]
        assert scored == [(text, at) for text, length in enumerate(lengths) for at in range(length)]
        assert all(0 < row.length <= window for row in cut)
        assert all(row.fresh - row.start == min(overlap, row.fresh) for row in cut)


class TestBatches:
    @given(LENGTHS, st.integers(1, 100))
    def test_padded_batches_stay_under_the_bound(self, lengths: list[int], positions: int) -> None:
        """Every row is in one batch, and only a batch of one row may be larger than the bound."""
        cut = rows(lengths, window=32, overlap=8)
        grouped = batches(cut, positions=positions)
        assert sorted(map(hash, cut)) == sorted(hash(row) for batch in grouped for row in batch)
        for batch in grouped:
            assert batch[0].length == max(row.length for row in batch)
            assert len(batch) == 1 or len(batch) * batch[0].length <= positions

    def test_padding_is_on_the_right(self) -> None:
        """A row starts with the start token and lacks its last token, which is only a target."""
        batch = [Row(0, 0, 0, 3), Row(1, 0, 0, 1)]
        assert padded(batch, [[7, 8, 9], [5]], first=1).tolist() == [[1, 7, 8], [1, 1, 1]]


class TestSelfInformation:
    def test_equals_the_cross_entropy_of_all_logits(self) -> None:
        """Blocks of logits give what torch's own loss gives on the whole."""
        torch.manual_seed(1)
        head, hidden, targets = torch.nn.Linear(8, 50), torch.randn(23, 8), torch.randint(0, 50, (23,))
        expected = torch.nn.functional.cross_entropy(head(hidden), targets, reduction="none")
        torch.testing.assert_close(self_information(hidden, targets, head, block=5), expected)

    def test_narrow_logits_are_summed_in_fp32(self) -> None:
        """Of bf16 logits the sums are those of fp32, to the bit, however many rows are widened at once."""
        torch.manual_seed(1)
        head, hidden = torch.nn.Linear(8, 5000).bfloat16(), torch.randn(2 * SUM_ROWS + 3, 8).bfloat16()
        targets = torch.randint(0, 5000, (len(hidden),))
        logits = head(hidden).float()
        expected = torch.logsumexp(logits, dim=1) - logits[range(len(targets)), targets]
        nats = self_information(hidden, targets, head)
        assert nats.dtype is torch.float32
        assert nats.equal(expected)

    def test_a_window_that_holds_the_text_equals_a_full_pass(self) -> None:
        """Scores of a padded batch equal those of each text alone, from the model's own loss."""
        model = random_model()
        ids = [torch.randint(0, 256, (length,)).tolist() for length in (30, 11, 1)]
        batch = rows([len(tokens) for tokens in ids], window=64, overlap=16)
        nats = read(model.model, model.lm_head, batch, ids, first=256)
        expected = [_full_pass(model, tokens) for tokens in ids]
        torch.testing.assert_close(nats, torch.cat(expected), rtol=1e-4, atol=1e-4)

    def test_a_later_window_reads_its_overlap_after_the_start_token(self) -> None:
        """A row after the first scores what the model says of its fresh tokens given start token and overlap."""
        model, ids = random_model(), torch.randint(0, 256, (40,)).tolist()
        _, second = rows([40], window=32, overlap=8)
        expected = _full_pass(model, ids[second.start :])[second.fresh - second.start :]
        torch.testing.assert_close(read(model.model, model.lm_head, [second], [ids], first=256), expected)


def _full_pass(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits = model(torch.tensor([[256, *ids]])).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(ids), reduction="none")


@pytest.fixture(autouse=True)
def no_gradients() -> object:
    """Functions of tensors are called without gradients, as the model calls them."""
    with torch.inference_mode():
        yield
