"""The worker's models by name, and its memory of scores."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ctxmem.errors import ModelError, Unavailable
from service.errors import UnknownModel
from service.worker.engine import Engine, Prompt
from service.worker.scores import ScoreCache


class TestNames:
    def test_a_packaged_model_goes_by_both_its_names(self) -> None:
        """The one in settings and the one OpenAI clients send."""
        engine = Engine("smollm2")
        assert engine.model_id == "smollm2-135m-instruct"
        engine.check("smollm2")
        engine.check("smollm2-135m-instruct")
        with pytest.raises(UnknownModel, match="gpt-9"):
            engine.check("gpt-9")

    def test_a_hub_id_is_counted_with_its_own_tokenizer(self, tmp_path: Path) -> None:
        """A bare hub id would be taken for an unknown hosted model, and estimated."""
        assert Engine("someone/something").tokenizer == "hf:someone/something"
        assert Engine("smollm2").tokenizer == "smollm2"
        assert Engine(str(tmp_path)).tokenizer == str(tmp_path)


class TestWithoutAModel:
    def test_a_model_that_cannot_be_loaded_is_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Scoring is unavailable, chat says why, and so do log and health."""

        async def main() -> None:
            engine = Engine(str(tmp_path / "gone"), cache_dir=tmp_path)
            with pytest.raises(Unavailable, match="in progress"):
                await engine.score(["text"], None)
            engine.start()
            with pytest.raises(ModelError, match="gone"):
                async with engine.chat(Prompt([1]), _sampling()):
                    raise AssertionError("there is nothing to chat with")
            with pytest.raises(Unavailable, match="gone"):
                await engine.score(["text"], None)
            assert isinstance(engine.failure, ModelError)
            engine.close()

        asyncio.run(main())
        assert "could not be loaded" in caplog.text


class TestScoreCache:
    def test_what_was_used_longest_ago_goes_first(self) -> None:
        """Bounded by bytes, whatever comes."""
        cache = ScoreCache(10)
        cache.put("a", b"1234")
        cache.put("b", b"1234")
        assert cache.get("a") == b"1234"
        cache.put("c", b"1234")
        assert [cache.get(text) for text in ("a", "b", "c")] == [b"1234", None, b"1234"]

    def test_a_text_put_again_takes_its_room_once(self) -> None:
        """The bound counts what is kept."""
        cache = ScoreCache(10)
        for _ in range(5):
            cache.put("a", b"12345678")
        assert cache.get("a") == b"12345678"


def _sampling() -> object:
    from ctxmem.lm.reply import Sampling

    return Sampling()
