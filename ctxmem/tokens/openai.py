"""Counts for OpenAI's models, offline: their encodings come inside the `bpe-openai` package.

`bpe-openai` is taken for its engine (a linear-time byte-pair encoder that cannot be made slow or crashed by long runs
of one character) and for carrying o200k beside cl100k; tiktoken downloads both and panics on a million blanks. Its
compiled counter is loaded without the Python layer above it, which reads every vocabulary a second time on import.

Sources: OpenAI Cookbook, "How to count tokens with Tiktoken" (messages and functions); tiktoken `model.py` (names);
OpenAI's guide "Images and vision" (the most an image can cost). Models after gpt-4o have been seen to count one token
less than the cookbook's formula.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Any

from ctxmem.errors import InvalidInput, ModelError
from ctxmem.tokens.counts import Remembered, well_formed
from ctxmem.types import Message, Part

_PER_MESSAGE, _PER_NAME, _PRIMER = 3, 1, 3  # tokens
_CL100K, _O200K = "cl100k_base", "o200k_base"


@dataclass(frozen=True, slots=True)
class Family:
    """Models that count alike.

    Attributes:
        prefix: how their names begin; a letter, digit or dot may follow only a prefix that ends in a dot or dash.
        encoding: name of their encoding.
        window: context window in tokens, the smallest of the family.
        image: the most tokens an image can cost.
    """

    prefix: str
    encoding: str
    window: int
    image: int = 3_779  # 1,536 patches at 2.46 tokens each, more than any tiling but that of gpt-4o-mini


FAMILIES = (
    Family("gpt-5", _O200K, 400_000),
    Family("gpt-5.", _O200K, 400_000),
    Family("gpt-5-chat", _O200K, 128_000),
    Family("gpt-5.1-chat", _O200K, 128_000),
    Family("gpt-5.2-chat", _O200K, 128_000),
    Family("gpt-oss", _O200K, 131_072),
    Family("gpt-4.5", _O200K, 128_000),
    Family("gpt-4.1", _O200K, 1_047_576),
    Family("gpt-4o", _O200K, 128_000),
    Family("gpt-4o-mini", _O200K, 128_000, image=48_169),
    Family("chatgpt-4o", _O200K, 128_000),
    Family("codex-mini", _O200K, 200_000),
    Family("o1", _O200K, 200_000),
    Family("o1-mini", _O200K, 128_000),
    Family("o1-preview", _O200K, 128_000),
    Family("o3", _O200K, 200_000),
    Family("o4", _O200K, 200_000),
    Family("gpt-4", _CL100K, 8_192),
    Family("gpt-4-32k", _CL100K, 32_768),
    Family("gpt-4-turbo", _CL100K, 128_000),
    Family("gpt-4-1106", _CL100K, 128_000),
    Family("gpt-4-0125", _CL100K, 128_000),
    Family("gpt-4-vision", _CL100K, 128_000),
    Family("gpt-3.5-turbo", _CL100K, 16_385),
    Family("gpt-3.5-turbo-instruct", _CL100K, 4_096),
    Family("gpt-35-turbo", _CL100K, 16_385),
    Family("text-embedding-3", _CL100K, 8_191),
    Family("text-embedding-ada-002", _CL100K, 8_191),
)
"""Every model that is counted as OpenAI's."""


def family(model: str) -> Family | None:
    """The family of a model: plain, dated, fine-tuned (`ft:`) or as routers name it (`openai/`); None when unknown."""
    name = model.removeprefix("openai/").removeprefix("ft:")
    matching = [one for one in FAMILIES if _begins(name, one.prefix)]
    return max(matching, key=lambda one: len(one.prefix), default=None)


class OpenAICounter:
    """Counts requests to OpenAI's models by the cookbook's formulas. Safe to use from many threads.

    Attributes:
        name: fingerprint: the encoding and the formulas.
        exact: True, which holds for messages of text. Tools, tool calls, images, sounds and files are counted at the
            most they can cost; `exact_for` tells such requests apart.
        window: context window in tokens.
    """

    exact = True

    def __init__(self, model: Family) -> None:
        """Load the family's encoding.

        Raises:
            ModelError: the bpe-openai package is not installed.
        """
        encoding = _engine().tokenizer_for_encoding(model.encoding)
        self._model = model
        self._counts = Remembered(lambda texts: [encoding.count(text) for text in texts])
        self.name = f"openai:{model.encoding}:{model.image}"
        self.window: int | None = model.window

    def texts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text alone, look-alikes of control tokens read as text."""
        return self._counts([well_formed(text) for text in texts])

    def messages(self, messages: Sequence[Message]) -> list[int]:
        """Tokens each message adds to a request; with the primer of 3 they sum to `request` without tools."""
        return [self._message(message) for message in messages]

    def request(self, messages: Sequence[Message], tools: bytes | None = None) -> int:
        """Tokens of the whole request.

        Raises:
            InvalidInput: `tools` is not a JSON array.
        """
        return sum(self.messages(messages)) + _PRIMER + self._tools(tools)

    def exact_for(self, messages: Sequence[Message], tools: bytes | None = None) -> bool:
        """Whether the count of this request holds no estimate."""
        return not tools and all(part.kind == "text" for message in messages for part in message.parts)

    def _message(self, message: Message) -> int:
        images = sum(_is_image(part) for part in message.parts)
        texts = [message.role, *(part.text for part in message.parts if not _is_image(part))]
        texts += [name for name in (message.name, message.tool_call_id) if name]
        named = _PER_NAME if message.name else 0
        return _PER_MESSAGE + sum(self.texts(texts)) + named + self._model.image * images

    def _tools(self, tools: bytes | None) -> int:
        """The larger of the cookbook's formula, which knows flat parameters only, and the tokens of the JSON."""
        functions = [_function(tool) for tool in _array(tools)]
        if not functions:
            return 0
        opening = 7 if self._model.encoding == _O200K else 10
        return 12 + sum(max(opening + self._flat(one), *self.texts([_compact(one)])) for one in functions)

    def _flat(self, function: Mapping[str, Any]) -> int:
        """The cookbook's count of one function's name, description and parameters."""
        properties = _members(_members(function.get("parameters")).get("properties"))
        lines = [f"{function.get('name', '')}:{_description(function)}"]
        total = 3 if properties else 0
        for name, schema in properties.items():
            schema = _members(schema)
            lines.append(f"{name}:{schema.get('type', '')}:{_description(schema)}")
            choices = schema.get("enum")
            total += 3
            if isinstance(choices, list):
                total += 3 * len(choices) - 3
                lines += map(str, choices)
        return total + sum(self.texts(lines))


def _engine() -> Any:
    """The compiled module of bpe-openai."""
    package = find_spec("bpe_openai")
    places = package.submodule_search_locations if package else None
    spec = PathFinder.find_spec("bpe_openai._bindings", places) if places else None
    if spec is None or spec.loader is None:
        raise ModelError("OpenAI's encodings take the bpe-openai package: pip install bpe-openai")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _begins(name: str, prefix: str) -> bool:
    rest = name.removeprefix(prefix)
    whole = prefix[-1] in ".-" or (not rest[:1].isalnum() and not rest.startswith("."))
    return name.startswith(prefix) and whole


def _is_image(part: Part) -> bool:
    return part.kind == "opaque" and ('"image_url"' in part.text or '"input_image"' in part.text)


def _array(tools: bytes | None) -> list[Any]:
    try:
        found = json.loads(tools or b"[]")
        json.dumps(found)  # what is too deep to be written is refused here as well
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"tools is not valid JSON: {error}", param="tools") from error
    if not isinstance(found, list):
        raise InvalidInput(f"tools must be an array, got {type(found).__name__}", param="tools")
    return found


def _function(tool: Any) -> Mapping[str, Any]:
    """The function a tool defines; a tool of another kind stands for itself."""
    tool = _members(tool)
    return _members(tool.get("function")) or tool


def _members(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _description(schema: Mapping[str, Any]) -> str:
    return str(schema.get("description", "")).removesuffix(".")


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
