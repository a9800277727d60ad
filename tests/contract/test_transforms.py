"""The laws that every registered transform keeps, on any conversation. A new row in `KNOBS` gets the whole suite."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from ctxmem.compressors.lexical import Lexical
from ctxmem.errors import BudgetError
from ctxmem.plan import ContextPlan, layout
from ctxmem.registry import TRANSFORMS, resolve
from ctxmem.testing import DeadScorer, LengthScorer, WordCounter, messages, tool_call, tool_result
from ctxmem.transform import Transform, run
from ctxmem.types import Budget

COUNT = WordCounter()

KNOBS: list[tuple[str, dict[str, Any]]] = [
    ("fit", {}),
    ("fit", {"low": 0.3}),
    ("fold", {}),
    ("fold", {"auto": True, "least": 0}),
    ("consolidate", {}),
    ("consolidate", {"low": 0.9, "share": 0.8}),
    ("selective", {"scorer": Lexical(), "min_tokens": 10}),
    ("selective", {"scorer": LengthScorer(), "min_tokens": 6, "target": 0.2, "keep": 0.4, "deadline": None}),
    ("selective", {"scorer": DeadScorer(), "min_tokens": 6, "target": 0.5, "unit": "sentence"}),
]
"""Name of a transform and its knobs."""

MADE = {f"{name}-{place}": resolve(name)(**knobs) for place, (name, knobs) in enumerate(KNOBS)}
FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
"""Of each law: drawing a plan takes longer than what all transforms do with it, so each one goes to all of them."""

PIECES = "the|river|of|Paris|1998|was|not|old|;|we|`run x`|,|(|it|)|!|日本語|😀|שלום|ERROR:|a_b|{|\n|.|```|\0"
WORDS = [*PIECES.split("|"), "<|im_end|>"]
texts = st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join)


@st.composite
def scopes(draw: st.DrawFn, name: str) -> list[Any]:
    """A call that begins or ends a subtask, answered or not, alone or beside another; often none."""
    tool = draw(st.sampled_from([None, None, "begin_subtask", "return_answer", "transfer_to_b", "transfer_back_to_a"]))
    if tool is None:
        return []
    ids = [name, f"{name}+"][: draw(st.integers(1, 2))]
    arguments = json.dumps({"task" if tool == "begin_subtask" else "answer": draw(texts)})
    results = [tool_result(id, "ok") for id in ids[: draw(st.integers(0, 2))]]
    return [tool_call(*ids, name=tool, arguments=arguments), *results]


@st.composite
def conversations(draw: st.DrawFn) -> list[Any]:
    """System messages, turns with and without tool exchanges, images, several parts."""
    said: list[Any] = [f"system: {draw(texts)}"] if draw(st.booleans()) else []
    for turn in range(draw(st.integers(0, 6))):
        said.append(draw(st.one_of(texts.map("user: {}".format), texts.map(_with_image))))
        for call in range(draw(st.integers(0, 2))):
            ids = [f"c{turn}-{call}-{i}" for i in range(draw(st.integers(1, 2)))]
            said.append(tool_call(*ids, text=draw(st.one_of(st.none(), texts))))
            said += [tool_result(id, draw(texts)) for id in ids]
            said += draw(scopes(f"s{turn}-{call}"))
        if draw(st.booleans()):
            said.append(f"assistant: {draw(texts)}")
    return said


def _with_image(text: str) -> dict[str, Any]:
    image = {"type": "image_url", "image_url": {"url": "data:,x"}}
    return {"role": "user", "content": [{"type": "text", "text": text}, image, {"type": "text", "text": text}]}


@st.composite
def plans(draw: st.DrawFn) -> ContextPlan:
    """A conversation under a budget, part of it sent before."""
    said = messages(*draw(conversations()))
    frozen = {f"m{i}" for i in range(draw(st.integers(0, len(said))))} if draw(st.booleans()) else set()
    return layout(said, Budget(draw(st.integers(1, 400))), COUNT, frozen=frozen)


def each() -> Iterator[Transform]:
    """All of them; a failure names the one."""
    for name, transform in MADE.items():
        note(name)
        yield transform


def apply(transform: Transform, plan: ContextPlan) -> ContextPlan | None:
    """What the transform makes of the plan; None when it says that it cannot fit."""
    try:
        return run(plan, [transform], strict=True)
    except BudgetError as error:
        assert error.needed > error.limit == plan.budget.limit
        return None


def test_every_registered_transform_is_here():
    """Whoever registers one adds a row."""
    assert {name for name, _ in KNOBS} == set(TRANSFORMS)


@FEW
@given(plan=plans())
def test_sizes_add_up(plan):
    """The sum over the segments is the count of the rendering, and the decisions account for the difference."""
    for transform in each():
        after = apply(transform, plan)
        if after is not None:
            assert after.tokens == after.exact == plan.tokens - after.report.saved
            assert after.tokens <= plan.tokens


@FEW
@given(plan=plans())
def test_locked_segments_survive_in_order(plan):
    """Pinned and frozen ones, word for word."""
    for transform in each():
        after = apply(transform, plan)
        if after is not None:
            assert [s for s in after.segments if s.locked] == [s for s in plan.segments if s.locked]


@FEW
@given(plan=plans())
def test_groups_stay_whole(plan):
    """All segments of a group are there, or none."""
    for transform in each():
        after = apply(transform, plan)
        if after is not None:
            kept = {s.group for s in after.segments}
            assert [s.id for s in after.segments if not s.ours] == [s.id for s in plan.segments if s.group in kept]


@FEW
@given(plan=plans())
def test_decisions_name_every_change(plan):
    """Replayed on the original they give the result: what none of them names is as it was."""
    for transform in each():
        after = apply(transform, plan)
        if after is None:
            continue
        named = {
            action: {id for d in after.decisions if d.action == action for id in d.segments}
            for action in ("drop", "prune", "consolidate", "fold")
        }
        standing = named["consolidate"] | named["fold"]
        gone = named["drop"] | standing
        rest = [s for s in plan.segments if s.id not in gone]
        kept = [s for s in after.segments if not s.ours]
        assert [s.id for s in kept] == [s.id for s in rest]
        changed = {s.id for s, old in zip(kept, rest, strict=True) if s != old}
        assert changed == named["prune"] - gone
        assert {id for s in after.segments if s.ours for id in s.sources} == {
            source for s in plan.segments if s.id in standing for source in s.sources
        }
        assert all(d.why and d.step for d in after.decisions)


@FEW
@given(plan=plans())
def test_texts_are_only_shortened(plan):
    """Each text is a subsequence of what it was: nothing is made up."""
    for transform in each():
        after = apply(transform, plan)
        if after is not None:
            before = {s.id: s.text for s in plan.segments}
            for segment in after.segments:
                if segment.ours:
                    continue
                characters = iter(before[segment.id])
                assert all(char in characters for char in segment.text)


@FEW
@given(plan=plans())
def test_it_settles(plan):
    """Run again, it finds nothing left to do."""
    for transform in each():
        after = apply(transform, plan)
        if after is not None:
            again = apply(transform, after)
            assert again is not None
            assert again.segments == after.segments


@FEW
@given(plan=plans())
def test_the_same_plan_gives_the_same_result(plan):
    """No clock, no chance."""
    for transform in each():
        first, second = apply(transform, plan), apply(transform, plan)
        assert (first is None) == (second is None)
        if first is not None and second is not None:
            assert (first.segments, first.decisions) == (second.segments, second.decisions)


def test_an_empty_plan_stays_empty():
    """Nothing in, nothing out."""
    assert {
        name: transform(layout((), Budget(10), COUNT)).segments for name, transform in MADE.items()
    } == dict.fromkeys(MADE, ())


@FEW
@given(plan=plans())
def test_with_fit_behind_it_the_request_fits(plan):
    """Or it is said that it cannot: every pipeline ends with `fit`."""
    for transform in each():
        try:
            after = run(plan, [transform, resolve("fit")()], strict=True)
        except BudgetError:
            continue
        assert after.exact <= plan.budget.limit


@FEW
@given(plan=plans())
def test_fit_fails_only_when_it_must(plan):
    """When it gives up, dropping everything droppable would not do either."""
    try:
        resolve("fit")()(plan)
    except BudgetError as error:
        must = [s for s in plan.segments if s.locked]
        assert error.needed >= sum(s.tokens for s in must) + plan.fixed
        assert error.needed > plan.budget.limit


def test_every_process_decides_alike():
    """Whatever the hash seed: a replay must give the same bytes on any machine."""
    code = (
        "from ctxmem.compressors.fit import Fit\nfrom ctxmem.compressors.lexical import Lexical\n"
        "from ctxmem.compressors.selective import SelectiveContext\nfrom ctxmem.plan import layout\n"
        "from ctxmem.testing import WordCounter, turns\nfrom ctxmem.transform import run\n"
        "from ctxmem.types import Budget\n"
        "plan = layout(turns(60, words=40), Budget(2000), WordCounter())\n"
        "after = run(plan, [SelectiveContext(Lexical(), min_tokens=24, target=0.5), Fit(low=0.5)], strict=True)\n"
        "print(after.segments, after.decisions)"
    )
    results = set()
    for seed in ("0", "1", "31337"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        results.add(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout)
    assert len(results) == 1
