"""The estimate lies above the truth."""

from __future__ import annotations

import base64
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmem import chat
from ctxmem.testing import messages, tool_call, tool_result
from ctxmem.tokens.estimate import IMAGE_TOKENS, MESSAGE_TOKENS, REQUEST_TOKENS, TOOLS_TOKENS, Estimate, estimate
from ctxmem.tokens.resolve import counter_for

_random = random.Random(7)


def _noise(alphabet: str, length: int) -> str:
    return "".join(_random.choice(alphabet) for _ in range(length))


def _stamp() -> str:
    return f"2026-11-{_random.randint(10, 28)}T{_random.randint(10, 23)}:59:07.{_random.randint(10**5, 10**6)}Z"


TEXTS = {
    "chinese": "人工智能是计算机科学的一个分支，它企图了解智能的实质，并生产出一种新的智能机器。" * 20,
    "japanese": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" * 20,
    "korean": "모든 국민은 인간으로서의 존엄과 가치를 가지며, 행복을 추구할 권리를 가진다." * 20,
    "russian": "Все люди рождаются свободными и равными в своем достоинстве и правах. " * 20,
    "arabic": "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. " * 20,
    "hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है। " * 20,
    "thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ " * 20,
    "vietnamese": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền. " * 20,
    "german": "Alle Menschen sind frei und gleich an Würde und Rechten geboren und mit Vernunft begabt. " * 20,
    "finnish": "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan. " * 20,
    "polish": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. " * 20,
    "swahili": "Watu wote wamezaliwa huru, hadhi na haki zao ni sawa. Wote wamejaliwa akili na dhamiri. " * 20,
    "emoji": "😀👍🏽👨‍👩‍👧‍👦🇩🇪❤️🔥 " * 100,
    "base64": base64.b64encode(_random.randbytes(9000)).decode(),
    "hex": _random.randbytes(9000).hex(),
    "ids": "\n".join(_random.randbytes(16).hex() for _ in range(200)),
    "digits": _noise("0123456789", 8000),
    "numbers": " ".join(str(_random.randint(0, 10**7)) for _ in range(2000)),
    "punctuation": _noise("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", 8000),
    "capitals": _noise("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 8000),
    "run of letters": _noise("abcdefghijklmnopqrstuvwxyz", 8000),
    "blanks": _noise(" \n\t\r", 8000),
    "one blank": " " * 8000,
    "control": _noise("".join(map(chr, range(32))), 4000),
    "rare ideographs": "".join(chr(_random.randint(0x4E00, 0x9FFF)) for _ in range(3000)),
    "log": "\n".join(f"{_stamp()} INFO worker[{i}]: request_id=req_{i:x} took {i / 7:.3f}ms" for i in range(200)),
    "urls": "\n".join(f"https://example.com/a/{_random.randbytes(5).hex()}?q={i * 7919}&x=%20" for i in range(200)),
    "json": json.dumps([{"id": i, "name": f"item {i}", "tags": ["a", "b"], "price": i / 3} for i in range(200)]),
    "indented json": json.dumps([{"id": i, "nested": {"on": True, "of": None}} for i in range(200)], indent=4),
}
ENGLISH = ("locomo/open/locomo_open.json", "squad_xquad_en/open/squad_open.json", "qmsum/open/qmsum_val.jsonl")


@pytest.fixture(scope="module")
def truths(smollm2) -> list[Any]:
    """The counters the estimate must stay above."""
    return [smollm2, counter_for("gpt-4o"), counter_for("gpt-4")]


@pytest.mark.parametrize("name", TEXTS)
def test_no_kind_of_text_is_underestimated(truths, name):
    """By the worst of three tokenizers, and never above one token a byte."""
    text = TEXTS[name]
    worst = max(counter.texts([text])[0] for counter in truths)
    assert worst <= estimate(text) <= len(text.encode())


def test_code_is_not_underestimated(truths):
    """Each module of this package, and not by much overestimated either."""
    sources = [path.read_text(encoding="utf-8") for path in Path(chat.__file__).parent.rglob("*.py")]
    for text in sources:
        worst = max(counter.texts([text])[0] for counter in truths)
        assert worst <= estimate(text)
    whole = "\n".join(sources)
    assert estimate(whole) <= 1.5 * max(counter.texts([whole])[0] for counter in truths)


@pytest.mark.parametrize("name", ENGLISH)
def test_english_is_overestimated_by_a_third_at_most(truths, data, name):
    """Real chats, questions and meetings; the texts alone, one by one and joined."""
    said = _strings(_load(data / name))[:4000]
    estimated, counted = sum(Estimate().texts(said)), [sum(counter.texts(said)) for counter in truths]
    assert max(counted) <= estimated <= 1.35 * max(counted)
    joined = " ".join(said)
    assert max(counter.texts([joined])[0] for counter in truths) <= estimate(joined) <= 1.35 * counted[1]


@pytest.mark.parametrize("name", ["tau_bench/open/gpt4o_airline_open.jsonl", "beam/open"])
def test_real_records_are_not_underestimated(truths, data, name):
    """Agents' JSON with its escapes, and long chats."""
    path = data / name
    path = next(iter(sorted(path.iterdir()))) if path.is_dir() else path
    text = path.read_text(encoding="utf-8")[:200_000]
    assert max(counter.texts([text])[0] for counter in truths) <= estimate(text)


def test_a_rendered_request_is_not_underestimated(truths):
    """Template, names, calls and tools included."""
    tools = b'[{"type":"function","function":{"name":"f","description":"Does it.","parameters":{"type":"object"}}}]'
    said = messages("user: hi", tool_call("c1", arguments='{"a": 1}'), tool_result("c1", "42"), "user: and now?")
    for counter in truths:
        assert counter.request(said) <= Estimate().request(said)
        assert counter.request(said, tools) <= Estimate().request(said, tools)


@given(text=st.text())
def test_any_text_gets_a_count_within_its_bytes(text):
    """Lone surrogates and control characters too."""
    assert 0 <= estimate(text) <= len(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode())
    assert estimate(text) == estimate(text)


def test_the_request_is_the_sum_of_its_stated_parts():
    """So a reader of the documentation can do the sum."""
    counter = Estimate(window=1000)
    image = chat.parse({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x" * 9999}}]})
    said = (*messages("user: one two"), image)
    assert counter.messages(said) == [MESSAGE_TOKENS + estimate("one two"), MESSAGE_TOKENS + IMAGE_TOKENS]
    assert counter.request(said) == sum(counter.messages(said)) + REQUEST_TOKENS
    assert counter.request(said, b"[]") == counter.request(said) + TOOLS_TOKENS + estimate("[]")
    assert counter.request(said, b"{oops") > counter.request(said)
    assert (counter.exact, counter.window, Estimate().window) == (False, 1000, None)


def test_the_estimate_needs_the_standard_library_only():
    """The gateway loads it where no tokenizer may be loaded."""
    code = (
        "import sys; from ctxmem.tokens.estimate import Estimate; Estimate().texts(['x'])\n"
        "sys.exit(bool({'tokenizers', 'jinja2', 'tiktoken', 'bpe_openai', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def _load(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def _strings(value: Any) -> list[str]:
    """Every text of some words in decoded JSON, but no ids."""
    if isinstance(value, str):
        return [value] if value.count(" ") > 2 else []
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for member in members for text in _strings(member)]


def test_a_long_word_takes_no_longer_than_many_short_ones() -> None:
    """Three hundred thousand letters in one piece: looked ahead of at each of them, it would take an hour."""
    assert estimate("x" * 300_000) > 100_000
