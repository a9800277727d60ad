"""A real 300-turn conversation through the real service under a 2,048-token budget, every promise checked on the way.

    python -m bench.longchat                          # the embedded model answers; about as long as it generates
    python -m bench.longchat --scripted --turns 300   # a scripted upstream answers: ctxmem's own cost only

    python -m bench.longchat --policy ccm --folder one            # answers come from compressed memory
    python -m bench.longchat --policy ccm --kill 25 --against one # the same with the model worker killed on the way

Each turn is the next line of a LoCoMo chat; the client resends all history, as stateless clients do. For every request
the receipt is read and the request replayed: its tokens must fit the budget and equal what the model's own tokenizer
and chat template make of the replayed messages, and each event must stand in the receipt exactly once. At the end every
event that was ever left out or shortened is restored and compared byte for byte. Any breach ends the run with status 1.
The log (`--folder`) lets a broken run go on where it stopped. Under the policy `ccm` the client waits at each epoch
until the memory is made, so that two runs say the same; `--kill` ends the model worker with `kill -9` every so many
turns, and `--against` compares each answer and its log-probabilities with those of an earlier run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.progress import track

from bench import harness, traces
from bench.conversation import Conversation, Options, Turn, own_count
from bench.crash import back, kill
from bench.servers import scripted_upstream
from bench.stack import stack
from bench.upstream import MODEL

LOCAL_MODEL = "smollm2-135m-instruct"
WINDOW = 30
"""Turns up to a mark over which its cost is taken."""
MARKS = (50, 150, 300)
LOG = "turns.jsonl"


def resumed(log: Path) -> list[Turn]:
    """The turns of an earlier run; a half-written last line does not count."""
    if not log.exists():
        return []
    lines = log.read_text().split("\n")[:-1]
    return [Turn(**json.loads(line)) for line in lines]


def report(turns: Sequence[Turn], breaches: Sequence[str], out: Path | None) -> None:
    """Print the cost at the marks, what was saved, and every breach."""
    marks = [mark for mark in MARKS if mark <= len(turns)]
    rows = [_cost(turns, mark) for mark in marks]
    first = rows[0] if rows else None
    for name, key in (("CPU per turn, ms (mean)", "cpu_s"), ("wall per turn, ms (median)", "wall_s")):
        cells = [[str(r["mark"]), f"{1000 * r[key]:.1f}", f"{r[key] / first[key]:.2f}"] for r in rows if first]
        harness.show(f"{name} of the last {WINDOW} turns", ("turn", name, f"ratio to turn {MARKS[0]}"), cells)
    sent, whole = sum(turn.tokens for turn in turns), sum(turn.before for turn in turns)
    epochs = sum(turn.action.startswith("epoch") for turn in turns)
    most = max((turn.tokens for turn in turns), default=0)
    print(f"{len(turns)} turns, {epochs} epochs, largest request {most} tokens")
    behind = [turn.slots for turn in turns if turn.slots]
    if behind:
        print(f"{len(behind)} answers behind compressed memory, at most {max(behind)} slots")
    print(f"{sent} prompt tokens sent of {whole} ({sent / max(whole, 1):.0%})")
    for breach in breaches:
        print(f"BREACH: {breach}", file=sys.stderr)
    print("every promise held" if not breaches else f"{len(breaches)} breaches")
    harness.save(out, marks=rows, epochs=epochs, largest=most, sent=sent, whole=whole, breaches=list(breaches))


def _cost(turns: Sequence[Turn], mark: int) -> dict[str, float]:
    span = turns[max(0, mark - WINDOW) : mark]
    cpu = sum(t.cpu_s for t in span) / len(span)  # the system counts in steps of 10 ms, which a median would keep
    return {"mark": mark, "cpu_s": cpu, "wall_s": median(t.wall_s for t in span)}


def main() -> None:
    given = _arguments()
    try:
        said = traces.utterances()
    except FileNotFoundError as error:
        sys.exit(str(error))
    model, local = (MODEL, "") if given.scripted else (LOCAL_MODEL, "smollm2")
    options = Options(given.turns, given.budget, given.max_tokens, model, local, given.delta, given.policy)
    with ExitStack() as running:
        home = (given.folder or Path(running.enter_context(TemporaryDirectory(prefix="ctxmem-longchat-")))).resolve()
        home.mkdir(parents=True, exist_ok=True)
        upstreams = [running.enter_context(scripted_upstream(home))] if given.scripted else []
        service = stack(home, upstreams, model=local)
        running.enter_context(service.server)
        turns = resumed(home / LOG)
        talk = Conversation(service, options, None if given.scripted else own_count(local))
        talk.messages = [text.encode() for turn in turns for text in (turn.said, turn.answer)]
        lines = said[len(turns) : options.turns]
        with (home / LOG).open("a") as log:
            for number, line in track(list(enumerate(lines, len(turns) + 1)), "turns"):
                turns.append(talk.turn(number, line))
                log.write(json.dumps(asdict(turns[-1])) + "\n")
                log.flush()
                _between(talk, turns[-1], every=given.kill)
        breaches = [f"turn {t.number}: {what}" for t in turns for what in t.breaches] + talk.unrestored(turns)
        breaches += _otherwise(turns, resumed(given.against / LOG)) if given.against else []
    report(turns, breaches, given.json)
    sys.exit(bool(breaches))


def _between(talk: Conversation, turn: Turn, *, every: int) -> None:
    """What happens behind a turn: its memory is waited for, the worker is killed."""
    if talk.options.policy == "ccm" and turn.action.startswith("epoch") and not talk.remembered():
        raise RuntimeError(f"turn {turn.number}: no memory was made")
    if every and turn.number % every == 0:
        kill(talk.service, "worker")
        if not back(talk.service, "worker") or not talk.awake():
            raise RuntimeError(f"turn {turn.number}: the worker did not come back")


def _otherwise(turns: Sequence[Turn], earlier: Sequence[Turn]) -> list[str]:
    """Turns that went otherwise than in an earlier run."""
    found = [
        f"turn {turn.number}: {turn.answer} behind {turn.slots} slots, earlier {before.answer} behind {before.slots}"
        for turn, before in zip(turns, earlier, strict=False)
        if (turn.answer, turn.slots, turn.probabilities) != (before.answer, before.slots, before.probabilities)
    ]
    return [*found, *([f"{len(earlier)} turns earlier, {len(turns)} now"] if len(turns) != len(earlier) else [])]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=300)
    parser.add_argument("--budget", type=int, default=2048)
    parser.add_argument("--max-tokens", type=int, default=8)
    parser.add_argument("--scripted", action="store_true", help="a scripted upstream answers, no model is loaded")
    parser.add_argument("--delta", action="store_true", help="the client sends only what is new")
    parser.add_argument("--policy", default="", help="of each request")
    parser.add_argument("--kill", type=int, default=0, help="kill -9 the model worker every so many turns")
    parser.add_argument("--against", type=Path, help="folder of an earlier run that must have gone the same")
    parser.add_argument("--folder", type=Path, help="keep data and log here, and go on from them")
    parser.add_argument("--json", type=Path, help="write the results here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
