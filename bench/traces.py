"""Real conversations as request sequences: what an OpenAI client sent, turn by turn, with all history each time.

The folder is named by the environment variable `CTXMEM_DATA`; without it, `../shared/data` beside the checkout. A
record that cannot be read as a conversation is left out, and `load` says how many were.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxmem import chat
from ctxmem.errors import InvalidInput

ROOT = Path(__file__).resolve().parent.parent
Wire = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Trace:
    """One recorded conversation.

    Attributes:
        name: set and record, such as `tau_bench/17`.
        messages: the JSON of each message in order, answers included.
        roles: the messages' roles.
        tools: JSON array of the tools on offer; None when the record has none.
    """

    name: str
    messages: tuple[bytes, ...]
    roles: tuple[str, ...]
    tools: bytes | None = None

    def turns(self) -> list[int]:
        """For each request the client made, how many messages it held: all before an answer."""
        asked = [n for n in range(1, len(self.roles)) if self.roles[n] == "assistant" and _asks(self.roles[n - 1])]
        return asked if self.roles[-1] == "assistant" or not _asks(self.roles[-1]) else [*asked, len(self.roles)]


@dataclass(frozen=True, slots=True)
class TraceSet:
    """The traces of one set.

    Attributes:
        name: the set's folder.
        traces: what could be read.
        skipped: records that could not.
    """

    name: str
    traces: tuple[Trace, ...]
    skipped: int = 0


def data_root() -> Path:
    """The folder of real inputs; it may be absent."""
    return Path(os.environ.get("CTXMEM_DATA") or ROOT.parent / "shared" / "data")


def load(name: str, *, root: Path | None = None) -> TraceSet:
    """Read one set.

    Args:
        name: one of `SETS`.
        root: where the sets' folders are; `data_root()` by default.

    Raises:
        FileNotFoundError: the set is not there.
    """
    folder = (root or data_root()) / name
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there; set CTXMEM_DATA to the folder that holds {name}/")
    traces: list[Trace] = []
    skipped = 0
    for number, (record, wires, tools) in enumerate(SETS[name](folder)):
        trace = _trace(f"{name}/{record or number}", wires, tools)
        skipped += trace is None
        traces += [trace] if trace else []
    return TraceSet(name, tuple(traces), skipped)


Records = Iterator[tuple[str, Iterable[Wire], Any]]
"""Record name, its messages, its tools or None."""


def _tau_bench(folder: Path) -> Records:
    for path in sorted(folder.rglob("gpt4o_*.jsonl")):
        for number, record in enumerate(_lines(path)):
            yield f"{path.stem.split('_')[1]}-{number}", record.get("traj") or [], None


def _swe_agent(folder: Path) -> Records:
    for number, path in enumerate(sorted(folder.rglob("*.traj"))):
        try:
            history = json.loads(path.read_bytes()).get("history")
        except (ValueError, AttributeError):
            history = None
        yield f"{number}-{path.stem[:24]}", map(_from_swe_agent, history or []), None


def _webdancer(folder: Path) -> Records:
    for path in sorted(folder.rglob("*.jsonl")):
        for number, record in enumerate(_lines(path)):
            functions = record.get("functions") or []
            tools = [_tool(function) for function in functions if isinstance(function, dict)]
            yield str(number), _plain(record.get("messages") or []), tools or None


def _mtbench101(folder: Path) -> Records:
    for path in sorted(folder.rglob("*.jsonl")):
        for record in _lines(path):
            pairs = [(turn.get("user"), turn.get("bot")) for turn in record.get("history") or []]
            wires = [
                _said(role, text) for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)
            ]
            yield f"{record.get('task')}-{record.get('id')}", wires, None


def _locomo(folder: Path) -> Records:
    for path in sorted(folder.rglob("locomo*.json")):
        for record in json.loads(path.read_bytes()):
            talk = record.get("conversation") or {}
            first = talk.get("speaker_a")
            wires = [_said("user" if who == first else "assistant", text) for who, text in _utterances(talk)]
            yield str(record.get("sample_id")), _alternating(wires), None


SETS: dict[str, Callable[[Path], Records]] = {
    "tau_bench": _tau_bench,
    "swe_agent": _swe_agent,
    "webdancer": _webdancer,
    "locomo": _locomo,
    "mtbench101": _mtbench101,
}
"""Reader of each set's folder."""


def utterances(sample: int = 2, *, root: Path | None = None) -> list[str]:
    """The lines of one LoCoMo chat in order, each as `speaker: text`, what a picture shows in brackets."""
    path = next(iter(sorted(((root or data_root()) / "locomo").rglob("locomo*.json"))), None)
    if path is None:
        raise FileNotFoundError("no LoCoMo chats; set CTXMEM_DATA to the folder that holds locomo/")
    talk = json.loads(path.read_bytes())[sample]["conversation"]
    return [f"{who}: {text}" for who, text in _utterances(talk)]


def _utterances(talk: Wire) -> Iterator[tuple[str, str]]:
    sessions = [key for key, value in talk.items() if re.fullmatch(r"session_\d+", key) and isinstance(value, list)]
    for key in sorted(sessions, key=lambda key: int(key.rpartition("_")[2])):
        for turn in talk[key]:
            seen = f" [shows {turn['blip_caption']}]" if turn.get("blip_caption") else ""
            yield str(turn.get("speaker")), f"{turn.get('text') or ''}{seen}"


def _lines(path: Path) -> Iterator[Wire]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        yield record if isinstance(record, dict) else {}


def _trace(name: str, wires: Iterable[Wire], tools: Any) -> Trace | None:
    try:
        messages = [chat.parse(wire) for wire in wires]
    except InvalidInput:
        return None
    roles = tuple(message.role for message in messages)
    raws = tuple(message.raw or b"" for message in messages)
    trace = Trace(name, raws, roles, json.dumps(tools, ensure_ascii=False).encode() if tools else None)
    return trace if messages and trace.turns() else None


def _asks(role: str) -> bool:
    return role in ("user", "tool", "function")


def _said(role: str, text: Any) -> Wire:
    return {"role": role, "content": text if isinstance(text, str) else str(text or "")}


def _alternating(wires: Iterable[Wire]) -> Iterator[Wire]:
    """Neighbours of one speaker become one message, as chat templates want it."""
    last: Wire | None = None
    for wire in wires:
        if last and last["role"] == wire["role"]:
            last = _said(wire["role"], f"{last['content']}\n{wire['content']}")
            continue
        if last:
            yield last
        last = wire
    if last:
        yield last


def _plain(wires: Iterable[Wire]) -> Iterator[Wire]:
    """Messages with only the members the API knows."""
    for wire in wires:
        yield _said(str(wire.get("role")), wire.get("content"))


def _from_swe_agent(wire: Wire) -> Wire:
    """SWE-agent's bookkeeping members go; a tool's answer names its call the OpenAI way."""
    kept = {key: wire[key] for key in ("role", "content", "tool_calls", "name", "tool_call_id") if wire.get(key)}
    kept.setdefault("content", "")
    answers = wire.get("tool_call_ids") or []
    if wire.get("role") == "tool" and answers:
        kept.setdefault("tool_call_id", str(answers[0]))
    return kept


def _tool(function: Wire) -> Wire:
    name = function.get("name_for_model") or function.get("name")
    about = function.get("description_for_model") or function.get("description")
    return {
        "type": "function",
        "function": {"name": name, "description": about, "parameters": function.get("parameters")},
    }
