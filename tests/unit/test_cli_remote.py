"""The command line's view of a service: addresses, errors, streams that break."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ctxmem.cli.backend import find_service
from ctxmem.cli.options import Options
from ctxmem.cli.remote import RemoteService, segment
from ctxmem.cli.talk import Conversation
from ctxmem.errors import BudgetError, ConfigError, Conflict, CtxmemError, InvalidInput, NotFound, Unavailable

STREAM = b"".join(
    b"data: " + json.dumps(event).encode() + b"\n\n"
    for event in (
        {"choices": [{"delta": {"role": "assistant"}}]},
        {"choices": [{"delta": {"content": "Hello "}}]},
        {"choices": [{"delta": {"content": "Ann"}}]},
        {"choices": [], "usage": {"prompt_tokens": 3}},
    )
)


class Scripted(ThreadingHTTPServer):
    """Answers each path with what the test put there, and keeps what it was sent."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    """One exchange with it."""

    server: Scripted

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        status, answer = self.server.answers.get(self.path, (404, b"{}"))
        self.send_response(status)
        self.send_header("content-length", str(len(answer)))
        self.send_header("x-ctxmem-request-id", "rq_1")
        self.end_headers()
        self.wfile.write(answer)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with Scripted() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def service(scripted: Scripted) -> RemoteService:
    return RemoteService(f"http://127.0.0.1:{scripted.server_port}/v1", "cm-secret")


class TestCall:
    def test_the_key_and_the_body_go_along(self, service: RemoteService, scripted: Scripted) -> None:
        """JSON goes as the official SDKs send it, and the key as a bearer token."""
        scripted.answers["/v1/context?limit=3"] = (200, b'{"ok":true}')
        assert service.call("POST", "context", {"text": "naïve"}, limit=3, after=None) == {"ok": True}
        _, headers, body = scripted.seen[0]
        assert headers["authorization"] == "Bearer cm-secret"
        assert body == '{"text":"naïve"}'.encode()

    @pytest.mark.parametrize(
        ("status", "code", "kind"),
        [
            (400, "invalid_request", InvalidInput),
            (400, "context_length_exceeded", BudgetError),
            (401, "invalid_api_key", ConfigError),
            (404, "not_found", NotFound),
            (409, "conflict", Conflict),
            (500, "internal_error", CtxmemError),
            (503, "overloaded", Unavailable),
        ],
    )
    def test_an_error_is_the_one_it_stands_for(
        self, service: RemoteService, scripted: Scripted, status: int, code: str, kind: type[CtxmemError]
    ) -> None:
        """The service's own words, under the type that decides the exit code."""
        error = {"error": {"message": "no luck", "type": "x", "param": None, "code": code}}
        scripted.answers["/v1/sessions"] = (status, json.dumps(error).encode())
        with pytest.raises(CtxmemError, match="no luck") as raised:
            service.call("GET", "sessions")
        assert type(raised.value) is kind

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": "text"}'])
    def test_an_answer_of_another_kind_is_quoted(self, service: RemoteService, scripted: Scripted, body: bytes) -> None:
        """Something that is no ctxmem may listen on the port."""
        scripted.answers["/v1/sessions"] = (502, body)
        with pytest.raises(Unavailable, match="answered 502"):
            service.call("GET", "sessions")

    def test_ids_are_one_segment_of_the_path(self) -> None:
        """An id with a slash or a question mark cannot reach another route."""
        assert segment("a/../b?c=d#e ü") == "a%2F..%2Fb%3Fc%3Dd%23e%20%C3%BC"


class TestFind:
    def test_a_service_is_found_by_the_word_it_left(
        self, service: RemoteService, scripted: Scripted, tmp_path: Path
    ) -> None:
        """The address and the key both come from the data folder."""
        scripted.answers["/livez"] = (200, b"{}")
        (tmp_path / "service.json").write_text(json.dumps({"base_url": service.base_url}))
        (tmp_path / "key").write_text("cm-local")
        assert find_service(Options(chosen_data_dir=tmp_path)) == RemoteService(service.base_url, "cm-local")

    def test_a_named_service_is_taken_at_its_word(self, tmp_path: Path) -> None:
        """Whoever names one wants that one, alive or not."""
        options = Options(base_url="http://127.0.0.1:9/v1", api_key="k", chosen_data_dir=tmp_path)
        assert find_service(options) == RemoteService("http://127.0.0.1:9/v1", "k")

    @pytest.mark.parametrize("word", ["", "{", "[]", '{"base_url": 3}', '{"base_url": "http://127.0.0.1:9/v1"}'])
    def test_a_stale_or_broken_word_is_passed_over(self, tmp_path: Path, word: str) -> None:
        """A crash may have left anything."""
        (tmp_path / "service.json").write_text(word)
        assert find_service(Options(chosen_data_dir=tmp_path)) is None


class TestConversation:
    def test_pieces_come_as_they_are_written(self, service: RemoteService, scripted: Scripted) -> None:
        """Session and budget go as headers; the request's id comes back."""
        scripted.answers["/v1/chat/completions"] = (200, STREAM + b"data: [DONE]\n\n")
        conversation = Conversation(service, "s_1", "some-model", 512, 16)
        assert list(conversation.ask("Hi")) == ["Hello ", "Ann"]
        assert conversation.request_id == "rq_1"
        _, headers, body = scripted.seen[0]
        assert (headers["x-ctxmem-session"], headers["x-ctxmem-budget"]) == ("s_1", "512")
        assert json.loads(body)["messages"] == [{"role": "user", "content": "Hi"}]

    def test_an_answer_that_breaks_off_is_an_error(self, service: RemoteService, scripted: Scripted) -> None:
        """What came so far is shown, and the end is not taken for a whole answer."""
        broken = STREAM + b'data: {"error": {"message": "upstream went away"}}\n\n'
        scripted.answers["/v1/chat/completions"] = (200, broken)
        pieces = []
        with pytest.raises(Unavailable, match="upstream went away"):
            for piece in Conversation(service, "s_1", "some-model", None, 16).ask("Hi"):
                pieces.append(piece)  # noqa: PERF402 - what came before the error counts
        assert pieces == ["Hello ", "Ann"]
