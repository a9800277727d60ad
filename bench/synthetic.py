"""Long tool traces made here, the same on every machine: about 6k tokens of instructions, 2k per tool result."""

from __future__ import annotations

import json
from random import Random

from bench.traces import Trace

TOPICS = ("billing", "search", "auth", "export", "mailer", "ledger", "crawler", "quota", "cache", "report")
VERBS = ("retries", "rejects", "forwards", "drops", "stores", "signs", "splits", "checks", "merges", "delays")
LEVELS = ("DEBUG", "INFO", "INFO", "INFO", "WARNING", "ERROR")
INSTRUCTION_LINES = 220


def tool_trace(turns: int, *, seed: int = 7) -> Trace:
    """An agent that calls one tool per turn.

    Args:
        turns: how many calls, each answered by some 2,000 tokens of JSON rows, log lines or prose.
        seed: of the content.
    """
    random = Random(seed)
    wires: list[dict[str, object]] = [
        {"role": "system", "content": _instructions(random)},
        {"role": "user", "content": "Find why exports stall."},
    ]
    for number in range(turns):
        call = {"id": f"call_{number}", "type": "function", "function": _call(random, number)}
        wires += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call_{number}", "content": _result(random, number)},
        ]
    wires.append({"role": "assistant", "content": "The exporter waits for the ledger's lock."})
    raws = tuple(json.dumps(wire, separators=(",", ":")).encode() for wire in wires)
    tools = json.dumps([_tool(topic) for topic in TOPICS]).encode()
    return Trace(f"synthetic/{turns}", raws, tuple(str(wire["role"]) for wire in wires), tools)


def _instructions(random: Random) -> str:
    rules = [
        f"{n}. The {random.choice(TOPICS)} service {random.choice(VERBS)} a request when its {random.choice(TOPICS)}"
        f" quota is below {random.randrange(100)} and the caller is not listed."
        for n in range(INSTRUCTION_LINES)
    ]
    return "You repair a distributed system. Rules:\n" + "\n".join(rules)


def _tool(topic: str) -> dict[str, object]:
    fields = {
        name: {"type": "string", "description": f"Which {name} of {topic} to read."} for name in ("host", "since")
    }
    parameters = {"type": "object", "properties": fields, "required": ["host"]}
    return {
        "type": "function",
        "function": {"name": f"read_{topic}", "description": f"Reads {topic}.", "parameters": parameters},
    }


def _call(random: Random, number: int) -> dict[str, str]:
    arguments = {"host": f"node-{random.randrange(40)}", "since": f"2026-10-{1 + number % 28:02}"}
    return {"name": f"read_{random.choice(TOPICS)}", "arguments": json.dumps(arguments)}


def _result(random: Random, number: int) -> str:
    return (_rows, _log, _prose)[number % 3](random)


def _rows(random: Random) -> str:
    return json.dumps(
        [
            {
                "id": random.randrange(10**6),
                "service": random.choice(TOPICS),
                "state": random.choice(VERBS),
                "ms": random.randrange(9000),
            }
            for _ in range(75)
        ]
    )


def _log(random: Random) -> str:
    return "\n".join(_log_line(random) for _ in range(70))


def _log_line(random: Random) -> str:
    when = f"2026-10-{random.randrange(1, 29):02}T{random.randrange(24):02}:{random.randrange(60):02}:00Z"
    who = f"{random.choice(TOPICS)}[{random.randrange(9999)}]"
    return f"{when} {random.choice(LEVELS)} {who}: {random.choice(VERBS)} request {random.randrange(16**8):08x}"


def _prose(random: Random) -> str:
    return " ".join(_sentence(random) for _ in range(60))


def _sentence(random: Random) -> str:
    one, other, owner = (random.choice(TOPICS) for _ in range(3))
    event = f"When the {one} service {random.choice(VERBS)} a message"
    reaction = f"the {other} service {random.choice(VERBS)} it again after {random.randrange(60)} seconds"
    return f"{event}, {reaction}, unless an operator of {owner} has said otherwise in ticket {random.randrange(9999)}."
