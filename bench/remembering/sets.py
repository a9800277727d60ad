"""LoCoMo and BEAM as chats, and questions with the turns that hold their evidence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxmem.compressors.units import sentences
from ctxmem.compressors.words import stop

_PLACE = re.compile(r"D\d+:\d+")
_WORD = re.compile(r"[^\W_]+")
_TELLING = 3  # content words of a sentence that can be evidence


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a chat.

    Attributes:
        id: names it in the evidence.
        speaker: who said it.
        text: what was said.
        session: number of the session.
        date: when, as the set says it.
    """

    id: str
    speaker: str
    text: str
    session: str
    date: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a chat.

    Attributes:
        text: what is asked.
        kind: its category.
        evidence: ids of the turns that answer it.
    """

    text: str
    kind: str
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat and what is asked about it.

    Attributes:
        name: of the record.
        turns: in order.
        questions: those whose evidence exists.
    """

    name: str
    turns: tuple[Turn, ...]
    questions: tuple[Question, ...]


def locomo(data: Path) -> Iterator[Chat]:
    """The chats of LoCoMo; where the audit found other evidence, that counts. Malformed evidence is left out."""
    folder = data / "locomo" / "open"
    audited = {}
    for line in (folder / "audit_errors_open.jsonl").read_text().splitlines():
        row = json.loads(line)
        audited[row["question"]] = row.get("correct_evidence") or row["cited_evidence"]
    for number, record in enumerate(json.loads((folder / "locomo_open.json").read_text())):
        turns = tuple(_locomo_turns(record["conversation"]))
        known = {turn.id for turn in turns}
        questions = []
        for row in record["qa"]:
            places = _PLACE.findall(" ".join(map(str, audited.get(row["question"]) or row.get("evidence") or [])))
            evidence = tuple(dict.fromkeys(place for place in places if place in known))
            questions += [Question(row["question"], str(row["category"]), evidence)] if evidence else []
        yield Chat(f"locomo {number}", turns, tuple(questions))


def beam(data: Path) -> Iterator[Chat]:
    """The 100K chats of BEAM; evidence is what the user said, for that is what its questions are about."""
    for file in sorted((data / "beam" / "open").glob("100K_*.json")):
        record = json.loads(file.read_text())
        turns = tuple(_beam_turns(record["chat"]))
        said = {turn.id: turn for turn in turns if turn.speaker == "user"}
        questions = []
        for kind, rows in record["probing_questions"].items():
            for row in rows:
                ids = [str(number) for number in _numbers(row.get("source_chat_ids"))]
                evidence = tuple(dict.fromkeys(id for id in ids if id in said))
                questions += [Question(row["question"], kind, evidence)] if evidence else []
        yield Chat(f"beam {file.stem}", turns, tuple(questions))


def telling(text: str) -> list[str]:
    """The sentences of a turn that can be evidence; all of it when none is long enough."""
    found = [" ".join(text[unit.body : unit.end].split()) for unit in sentences(text)]
    whole = [one for one in found if sum(not stop(word) for word in _WORD.findall(one)) >= _TELLING]
    return whole or [" ".join(text.split())]


def plain(text: str) -> str:
    """The words of a text in order, for finding a sentence in it whatever its marks."""
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def _locomo_turns(conversation: dict[str, Any]) -> Iterator[Turn]:
    number = 1
    while (said := conversation.get(f"session_{number}")) is not None:
        for turn in said:
            shown = turn["text"] + (f" [shares {turn['blip_caption']}]" if turn.get("blip_caption") else "")
            date = conversation.get(f"session_{number}_date_time", "")
            yield Turn(turn["dia_id"], turn["speaker"], shown, str(number), date)
        number += 1


def _beam_turns(batches: list[dict[str, Any]]) -> Iterator[Turn]:
    date = ""
    for batch in batches:
        for exchange in batch["turns"]:
            for said in exchange:
                date = said.get("time_anchor") or date
                text = said["content"].partition(" ->-> ")[0]
                yield Turn(str(said["id"]), said["role"], text, str(batch["batch_number"]), date)


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _numbers(each)
