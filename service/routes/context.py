"""Contexts without a model's answer: build, compress, count."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Response

from ctxmem import chat
from ctxmem.compressors.budgets import spend
from ctxmem.compressors.compress import Compressor
from ctxmem.compressors.decisions import Decisions
from ctxmem.compressors.lexical import Lexical
from ctxmem.compressors.outcome import Compressed
from ctxmem.compressors.remembered import Flights
from ctxmem.ids import item_of_artifact
from ctxmem.manager import Call, ContextManager
from ctxmem.manager.reversible import RESTORE_TOOL, Reversible
from service.routes import shapes
from service.routes.access import JsonBody, Manager, Parts, as_json, documented, shaped, threaded
from service.wire.splice import joined

_DECIDING = Flights()
"""Texts that requests are compressing right now, so that none is compressed twice at a time."""

router = APIRouter(prefix="/v1", tags=["context"])


@router.post("/context", openapi_extra=documented(shapes.ContextRequest))
async def context(service: Parts, manager: Manager, body: JsonBody) -> Response:
    """Log what is new and build the context to send; the caller sends it."""
    asked = shaped(shapes.ContextRequest, body)

    def build() -> Response:
        call = Call(
            messages=chat.parse_all(body.messages()),
            model=asked.model,
            session_id=manager.session(asked.session_id).id if asked.session_id else None,
            user_id=asked.user_id,
            budget=asked.limits,
            reserve=asked.reserve,
            tools=body.fields["tools"] if asked.tools else None,
            policy=asked.policy,
            cache=service.cache_terms(asked.model),
        )
        prepared = manager.build(call)
        messages = msgspec.Raw(joined([message.raw or b"{}" for message in prepared.messages]))
        return as_json({"messages": messages, "receipt": manager.receipt(prepared.request_id).wire()})

    return await threaded(service, build)


@router.post("/compress", openapi_extra=documented(shapes.CompressRequest))
async def compressed(service: Parts, manager: Manager, body: JsonBody) -> Response:
    """Shorten a text or messages; the original can be restored by the item id."""
    asked = shaped(shapes.CompressRequest, body)

    def work() -> Response:
        done = _compressed(manager, asked, None if asked.messages is None else body.messages())
        original = body.fields["messages"] if asked.text is None else None
        wrapped = b'{"messages":' + original + b"}" if original else chat.dump({"role": "user", "content": asked.text})
        put = manager.engine.store.put_artifact
        item_id = item_of_artifact(put(manager.tenant, wrapped, session_id=asked.session_id))
        return as_json(
            {
                **_outcome(done),
                "tokens_before": done.tokens_before,
                "tokens_after": done.tokens_after,
                "dropped": [{"start": cut.start, "end": cut.end, "reason": cut.why} for cut in done.dropped],
                "item_id": item_id,
                "reason": done.reason,
            }
        )

    return await threaded(service, work)


@router.get("/tools")
async def tools(manager: Manager) -> Response:
    """Tools to give a model whose context is compressed, in OpenAI's shape; the same every time."""
    del manager
    return as_json({"tools": [RESTORE_TOOL]})


@router.post("/tools/ctx_restore", openapi_extra=documented(shapes.RestoreRequest))
async def restored(service: Parts, manager: Manager, body: JsonBody) -> Response:
    """Answer a model's call of `ctx_restore`: the original, or for good that there is none."""
    asked = shaped(shapes.RestoreRequest, body)
    return as_json({"content": await threaded(service, lambda: Reversible.of(manager).answer(asked.arguments))})


@router.post("/tokenize", openapi_extra=documented(shapes.TokenizeRequest))
async def tokenize(service: Parts, manager: Manager, body: JsonBody) -> Response:
    """Count tokens as budgets do."""
    asked = shaped(shapes.TokenizeRequest, body)

    def count() -> Response:
        counter = manager.engine.counters(asked.model)
        if asked.text is not None:
            tokens = counter.texts([asked.text])[0]
        else:
            tools = body.fields["tools"] if asked.tools else None
            tokens = counter.request(chat.parse_all(body.messages()), tools)
        return as_json({"tokens": tokens, "exact": counter.exact, "model": asked.model, "counter": counter.name})

    return await threaded(service, count)


def _compressed(manager: ContextManager, asked: shapes.CompressRequest, messages: list[bytes] | None) -> Compressed:
    """By self-information, or by the model-free scorer when the model worker is out of reach."""
    source = chat.parse_all(messages) if messages is not None else asked.text or ""
    shorten = Compressor(
        manager.engine.counters(asked.model),
        manager.engine.scorer,
        fallback=Lexical(),
        unit=asked.unit,
        decisions=Decisions(manager.engine.cache, manager.tenant, _DECIDING),
    )
    size, query = spend(asked.budget, ratio=asked.ratio), asked.query or ""
    if asked.mark and isinstance(source, str):
        return Reversible.of(manager, session_id=asked.session_id)(shorten, source, size, query=query)
    return shorten(source, size, query=query)


def _outcome(done: Compressed) -> dict[str, object]:
    if done.messages is None:
        return {"text": done.text}
    return {"messages": msgspec.Raw(joined([message.raw or b"{}" for message in done.messages]))}
