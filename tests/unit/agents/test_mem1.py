"""The MEM1 agent: answers, a constant prompt, and no answer of a model or tool that breaks the loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence

import pytest

from ctxmem.agents.mem1 import Mem1Agent
from ctxmem.compressors.mem1.knobs import Knobs
from ctxmem.testing import WordCounter
from ctxmem.types import Message

CAPITALS = {f"country{i}": f"City-{i:02d}" for i in range(16)}


def search(query: str) -> str:
    """Search the world."""
    return f"The capital of {query} is {CAPITALS.get(query, 'unknown')}. " + "It rained in the hills. " * 20


class Researcher:
    """Looks up one country after the other and answers from what it is shown: the paper's oracle."""

    def __init__(self, countries: Sequence[str]) -> None:
        self.countries = list(countries)
        self.peak = 0

    def answer(self, messages: Sequence[Message]) -> str:
        shown = "\n".join(message.text for message in messages)
        self.peak = max(self.peak, WordCounter().request(messages))
        known = {c: CAPITALS[c] for c in self.countries if f"capital of {c} is {CAPITALS[c]}" in shown}
        missing = [c for c in self.countries if c not in known]
        ops = [{"op": "add", "sec": "facts", "prio": 2, "text": f"capital of {c} is {known[c]}"} for c in known]
        if not missing:
            return json.dumps({"ops": ops, "answer": [known[c] for c in self.countries]})
        return json.dumps({"ops": ops, "action": {"tool": "search", "input": missing[0]}})

    def complete(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
        del max_tokens
        yield self.answer(messages)


def run(n: int, **knobs: object):
    countries = list(CAPITALS)[:n]
    model = Researcher(countries)
    agent = Mem1Agent(
        model, {"search": search}, WordCounter(), Knobs(**{"cadence": "every_turn", **knobs}), max_turns=40
    )
    return model, agent.run("Name the capitals", objectives=[f"capital of {c}?" for c in countries])


@pytest.mark.parametrize("n", [1, 2, 16])
def test_all_objectives_are_answered(n: int):
    """From state alone: the raw results have left the prompt."""
    _, result = run(n)
    assert result.stop == "answered"
    assert tuple(CAPITALS.values())[:n] == result.answers
    assert result.memory.rebuild() == result.state


def test_the_peak_hardly_grows_with_the_objectives():
    """Sixteen objectives against two: the state's lines are all that is added."""
    two, sixteen = run(2)[0].peak, run(16)[0].peak
    assert sixteen < two + 16 * 30


def test_a_final_answer_needs_no_update():
    """It is not asked for again, though one was due."""

    class Ends(Researcher):
        def answer(self, messages: Sequence[Message]) -> str:
            said = json.loads(super().answer(messages))
            return json.dumps({"answer": said["answer"]} if "answer" in said else said)

    model = Ends(["country1", "country2"])
    result = Mem1Agent(model, {"search": search}, WordCounter(), Knobs(cadence="every_turn")).run("Name them")
    assert (result.stop, result.answers) == ("answered", ("City-01", "City-02"))
    assert (len(result.account.turns), result.account.degraded) == (3, 0)


ACTION = '{"action": {"tool": "search", "input": "country1"}}'


@pytest.mark.parametrize(
    ("says", "recalled"), [(f"+ facts: It rained.\n{ACTION}", True), (f'{{"ops": [], {ACTION[1:]}', False)]
)
def test_the_log_is_recalled_unasked_where_an_update_may_have_lost_something(says: str, *, recalled: bool):
    """A valid one has noted what the model wanted of it; text that rides along is paid for at every turn."""

    class Forgets:
        shown = ""

        def complete(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
            self.shown = "\n".join(message.text for message in messages)
            yield says

    model = Forgets()
    knobs = Knobs(cadence="every_turn")
    Mem1Agent(model, {"search": search}, WordCounter(), knobs, max_turns=3).run(
        "x", objectives=["capital of country1?"]
    )
    assert ("Recalled:" in model.shown) == recalled


def test_a_model_without_actions_ends_the_run_with_its_reason():
    """Asked once more, then given up; the memory is there."""

    class Mute:
        def complete(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
            yield "I would rather not."

    result = Mem1Agent(Mute(), {}, WordCounter()).run("Anything")
    assert (result.stop, result.answers) == ("no_action", ())
    assert result.state.goal == "Anything"


def test_errors_of_model_and_tool_are_told_not_raised():
    """A tool that raises becomes an observation; a model that raises ends the run."""

    def broken(query: str) -> str:
        raise OSError(f"no route for {query}")

    result = Mem1Agent(Researcher(["country1"]), {"search": broken}, WordCounter(), max_turns=2).run("Name it")
    assert result.stop == "max_turns"
    assert any("no route" in turn.payload["text"] for turn in result.memory.log if turn.kind == "obs")

    class Down:
        def complete(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
            raise ConnectionError("refused")
            yield ""

    assert Mem1Agent(Down(), {}, WordCounter()).run("Name it").stop == "failed"


def test_the_async_driver_gives_the_same_run():
    """One loop, two drivers."""

    class Later(Researcher):
        async def complete(self, messages: Sequence[Message], *, max_tokens: int) -> str:  # type: ignore[override]
            del max_tokens
            await asyncio.sleep(0)
            return self.answer(messages)

    countries = list(CAPITALS)[:3]
    knobs = Knobs(cadence="every_turn")
    agent = Mem1Agent(Later(countries), {"search": search}, WordCounter(), knobs, max_turns=40)
    result = asyncio.run(agent.arun("Name the capitals", objectives=[f"capital of {c}?" for c in countries]))
    assert run(3)[1].answers == result.answers
    assert run(3)[1].state == result.state
