"""An agent whose subtasks fold: each leaves its answer in the prompt, and the pages it read can be recalled.

Runs offline and needs no model, a script stands for it: python examples/pencil_agent.py
"""

import json

from ctxmem.agents.pencil import PencilAgent
from ctxmem.tokens.resolve import counter_for

FOUNDED = {"Lisbon": 1147, "Porto": 1123, "Braga": 1070}


def read(town: str) -> str:
    """Read a town's chronicle."""
    return f"{town} had its charter in {FOUNDED[town]}. " + "It rained, and the harvest was poor. " * 60


def call(tool: str, **arguments: str) -> str:
    """What a model writes to call a tool."""
    return json.dumps({"action": {"tool": tool, "arguments": arguments}})


class Scripted:
    """Stands for a model: anything with `complete` does."""

    def __init__(self) -> None:
        self.steps = []
        for town, year in FOUNDED.items():
            task = f"when did {town} get its charter?"
            self.steps += [
                call("begin_subtask", task=task),
                call("read", town=town),
                call("return_answer", answer=f"{year}"),
            ]
        self.steps.append(json.dumps({"answer": ["Braga"]}))

    def complete(self, messages, *, max_tokens):
        """Say the next line of the script."""
        yield self.steps.pop(0)


agent = PencilAgent(Scripted(), {"read": read}, counter_for("smollm2"))
result = agent.run("Which of Lisbon, Porto and Braga has the oldest charter?")

for fold in result.folds:
    print(f"{fold.scope}: {fold.task} {fold.answer}")
sizes = [turn.prompt_tokens for turn in result.account.turns]
print(f"prompts of {sizes} tokens; the answer: {result.answers[0]}")
print(f"recalled: {result.transcript.recall('Porto charter', k=1)[0].text[:38]}")
