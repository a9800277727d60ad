"""What is sent, what the ledger keeps of it, and what the receipts say."""

from __future__ import annotations

import json
import random

import pytest

from ctxmem.chat import parse
from ctxmem.errors import BudgetError, NotFound
from ctxmem.ledger import CacheTerms
from ctxmem.manager import Call, ContextManager
from ctxmem.testing import WordCounter
from ctxmem.types import Budget
from tests.unit.manager.conftest import open_manager
from tests.unit.manager.test_arrive import SYSTEM, assistant, call, log, user

WORDS = (
    *("river", "stone", "lantern", "42", "harvest", "Ottawa", "quickly", "never"),
    *("amber", "seventeen", "bridge", "the", "of", "and", "was"),
)


def sentence(seed: int, words: int) -> str:
    """A repeatable sentence of that many words."""
    pick = random.Random(seed)
    return " ".join(pick.choice(WORDS) for _ in range(words)).capitalize() + "."


def converse(cm: ContextManager, turns: int, *, budget: int = 400, session: str = "s", start: int = 0):
    """A delta client's turns; yields each plan."""
    for i in range(start, turns):
        fresh = [SYSTEM, user(sentence(i, 30))] if i == 0 else [user(sentence(i, 30))]
        yield cm.prepare(session, fresh, budget)
        cm.record(session, sentence(10_000 + i, 20))


class TestPromises:
    def test_no_request_is_over_its_budget(self, cm: ContextManager):
        """Over 60 turns, by the counter's own count of what is rendered."""
        for plan in converse(cm, 60):
            assert WordCounter().request(plan.render()) <= 400
            assert plan.report.receipt.tokens == WordCounter().request(plan.render())

    def test_each_receipt_names_each_event_once(self, cm: ContextManager):
        """Whatever was dropped turns ago is still accounted for."""
        for i, plan in enumerate(converse(cm, 40)):
            ids = [item.event_id for item in plan.report.receipt.items]
            assert len(ids) == len(set(ids)) == 2 + 2 * i

    def test_what_a_receipt_says_is_what_was_sent(self, cm: ContextManager):
        """Kept items are in the request whole, pruned ones shortened, dropped ones not at all."""
        for plan in converse(cm, 40):
            sent = {m.id: m for m in plan.render()}
            for item in plan.report.receipt.items:
                original = cm.original(item.item_id)
                if item.decision == "dropped":
                    assert item.event_id not in sent and item.tokens_after == 0
                else:
                    assert (item.decision == "kept") == (sent[item.event_id].raw == original)

    def test_everything_restores_byte_for_byte(self, cm: ContextManager):
        """Dropped and pruned originals come back as they came in."""
        raws = [json.dumps(user(sentence(i, 40)), indent=i % 3 or None).encode() for i in range(40)]
        for raw in raws:
            request = cm.build(Call((parse(raw),), session_id="s", budget=Budget(300)))
            cm.answer(request.request_id, b'{"role":"assistant","content":"ok"}')
        items = cm.receipt(request.request_id).items
        assert any(item.decision != "kept" for item in items)
        assert raws == [cm.original(item.item_id) for item in items if b'"user"' in cm.original(item.item_id)]
        assert user(sentence(0, 40)) == cm.restore(items[0].item_id)

    def test_the_prefix_only_shrinks_at_an_epoch(self, cm: ContextManager):
        """Between epochs a request begins with the messages of the one before."""
        previous = ()
        for plan in converse(cm, 60):
            raws = tuple(m.raw for m in plan.render())
            if plan.report.receipt.action != "epoch":
                assert previous == raws[: len(previous)]
            previous = raws

    def test_the_receipts_prefix_is_the_real_one(self, cm: ContextManager):
        """The stable prefix in tokens equals the count of the messages both requests begin with."""
        previous = ()
        for plan in converse(cm, 30):
            messages = plan.render()
            same = 0
            while same < min(len(previous), len(messages)) and previous[same] == messages[same].raw:
                same += 1
            expected = WordCounter().request(messages[:same]) if same else 0
            assert expected == plan.report.receipt.stable_prefix_tokens
            previous = [m.raw for m in messages]

    def test_parts_add_up(self, cm: ContextManager):
        """System, tools, history and query make the whole."""
        for plan in converse(cm, 20):
            receipt = plan.report.receipt
            assert receipt.tokens == sum(receipt.parts.values())
            assert receipt.parts["system"] > 0 and receipt.parts["query"] > 0

    def test_a_replay_gives_the_bytes_that_were_sent(self, cm: ContextManager):
        """For every request of a session, epochs between them or not."""
        plans = list(converse(cm, 40))
        for plan in plans:
            replay = cm.replay(plan.report.receipt.id)
            assert replay.identical
            assert [m.raw for m in plan.render()] == [m.raw for m in replay.messages]

    def test_a_replay_with_another_budget_fits_it(self, cm: ContextManager):
        """What would have been sent under half the budget; nothing is written."""
        plan = list(converse(cm, 20))[-1]
        before = cm.session("s").head
        replay = cm.replay(plan.report.receipt.id, budget=Budget(200))
        assert replay.receipt.tokens <= 200
        assert before == cm.session("s").head

    def test_a_restart_changes_nothing(self, cm: ContextManager, path):
        """A session that goes on in a fresh process is rendered as if it had never stopped."""
        straight = [[m.raw for m in plan.render()] for plan in converse(cm, 30, session="a")]
        broken = []
        for i in range(30):
            other = open_manager(path)
            broken += [[m.raw for m in plan.render()] for plan in converse(other, i + 1, session="b", start=i)]
            other.close()
        assert straight == broken

    def test_a_full_client_is_rendered_like_a_delta_client(self, cm: ContextManager):
        """Resending all history or only what is new makes the same requests."""
        delta = [[m.raw for m in plan.render()] for plan in converse(cm, 30, session="delta")]
        history, full = [SYSTEM], []
        for i in range(30):
            history.append(user(sentence(i, 30)))
            full.append([m.raw for m in cm.prepare("full", history, 400).render()])
            cm.record("full", sentence(10_000 + i, 20))
            history.append(assistant(sentence(10_000 + i, 20)))
        assert delta == full


class TestModes:
    def test_an_untouched_request_is_not_changed(self, cm: ContextManager):
        """With room to spare the caller's bytes are the bytes to send."""
        prepared = cm.build(call(SYSTEM, user("one"), session_id="s"))
        assert not prepared.changed
        assert prepared.receipt.action == "pass"

    def test_observe_sends_the_original(self, cm: ContextManager):
        """The receipt says what would have been; the request is as it came."""
        history = [SYSTEM, *(m for i in range(20) for m in (user(sentence(i, 30)), assistant("ok")))][:-1]
        prepared = cm.build(call(*history, session_id="s", budget=Budget(200), mode="observe"))
        assert not prepared.changed
        assert prepared.receipt.tokens <= 200 < prepared.tokens_before

    def test_a_budget_below_the_pinned_minimum_is_an_error_and_nothing_is_lost(self, cm: ContextManager):
        """The messages are logged and the error says what is needed."""
        with pytest.raises(BudgetError) as caught:
            cm.prepare("s", [user(sentence(1, 50))], 20)
        assert (caught.value.needed, caught.value.limit) == (55, 20)
        assert len(log(cm, "s")) == 1
        assert len(cm.prepare("s", [user(sentence(1, 50))], 100).messages()) == 1

    def test_tokens_before_count_the_whole_history(self, cm: ContextManager):
        """Dropped turns stay in the sum of what an unmanaged client would have sent."""
        messages = [SYSTEM]
        for i in range(30):
            messages += [user(sentence(i, 30))]
            prepared = cm.build(call(messages[-1], session_id="s", budget=Budget(300), history="delta"))
            cm.answer(prepared.request_id, parse(assistant("ok")).raw)
            messages += [assistant("ok")]
        expected = WordCounter().request([parse(m) for m in messages[1:-1]])
        assert expected == prepared.tokens_before

    def test_a_cold_cache_makes_an_epoch_free(self, cm: ContextManager):
        """When the model changes, the provider's cache is cold, and half-full contexts are brought down."""
        warm = CacheTerms(write=1.25)
        sizes = []
        for i in range(12):
            model = "a" if i < 11 else "b"
            prepared = cm.build(
                call(user(sentence(i, 30)), session_id="s", budget=Budget(600), model=model, cache=warm)
            )
            cm.answer(prepared.request_id, parse(assistant("ok")).raw)
            sizes.append((prepared.receipt.action, prepared.tokens_after))
        assert [action for action, _ in sizes[:10]] == ["pass"] * 10
        assert sizes[-1][0] == "epoch"

    def test_unknown_ids_are_not_found(self, cm: ContextManager):
        """Neither receipts nor items are invented, nor read across tenants."""
        plan = cm.prepare("s", [user("one")])
        receipt = plan.report.receipt
        for manager, request_id, item_id in (
            (cm, "rq_0", "it_0"),
            (cm.for_tenant("other"), receipt.id, receipt.items[0].item_id),
        ):
            with pytest.raises(NotFound):
                manager.receipt(request_id)
            with pytest.raises(NotFound):
                manager.restore(item_id)

    def test_a_large_tool_result_is_shortened_once_and_stays_so(self, cm: ContextManager):
        """On arrival, before it is first sent; later requests replay the shortened form."""
        asked = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "search", "arguments": "{}"}}],
        }
        result = {"role": "tool", "tool_call_id": "c1", "content": " ".join(sentence(i, 12) for i in range(60))}
        first = cm.prepare("s", [user("look"), asked, result])
        assert first.report.receipt.action == "arrival"
        shortened = first.messages()[2]
        assert len(shortened["content"]) < len(result["content"]) * 0.8
        cm.record("s", "found it")
        second = cm.prepare("s", [user("look"), asked, result, assistant("found it"), user("thanks")])
        assert shortened == second.messages()[2]
        pruned = [item for item in second.report.receipt.items if item.decision == "pruned"]
        assert [result] == [cm.restore(item.item_id) for item in pruned]
