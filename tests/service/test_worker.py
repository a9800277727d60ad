"""The real model worker, with the packaged model, asked as the gateway and as OpenAI's own client ask it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from ctxmem import chat, models
from ctxmem.errors import ModelError, Unavailable
from service.worker.channel import UnixConnection
from service.worker.client import RemoteCounter, RemoteScorer
from tests.service.worker_process import Worker, running

pytestmark = pytest.mark.model

MODEL = "smollm2-135m-instruct"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
TALK = [
    {"role": "system", "content": "You are terse. 日本語 🎉"},
    *QUESTION,
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": [{"type": "text", "text": "And <|im_end|> of"}, {"type": "text", "text": " Italy?"}]},
]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


@pytest.fixture(scope="module")
def cache(pytestconfig: pytest.Config) -> Path:
    """Where the model is converted once for many runs; skips aloud where it is not installed."""
    try:
        models.locate("smollm2")
    except ModelError as error:
        pytest.skip(str(error))
    assert pytestconfig.cache is not None
    return pytestconfig.cache.mkdir("ctxmem-models")


@pytest.fixture(scope="module")
def worker(cache: Path) -> Iterator[Worker]:
    """A worker whose model is ready."""
    with running(cache) as made:
        made.until(lambda health: health.state == "ready")
        yield made


@pytest.fixture
def sdk(worker: Worker) -> Iterator[openai.OpenAI]:
    with worker.openai() as made:
        yield made


@pytest.fixture(scope="module")
def tokenizer(worker: Worker, cache: Path) -> Any:
    """The model's tokenizer as transformers reads it from the converted folder."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(models.home("smollm2", cache))


class TestCounts:
    @pytest.mark.parametrize("messages", [QUESTION, TALK])
    def test_a_request_counts_what_transformers_renders(
        self, worker: Worker, tokenizer: Any, messages: list[dict[str, Any]]
    ) -> None:
        """Count, the model's own template and the usage of a reply agree to the token."""
        plain = [{**m, "content": _plain(m["content"])} for m in messages]
        ids = tokenizer.apply_chat_template(
            plain, add_generation_prompt=True, sanitize_control_tokens=True, return_dict=False
        )
        counted = RemoteCounter(worker.client, "smollm2").request([chat.parse(message) for message in messages])
        with worker.openai() as sdk:
            reply = sdk.chat.completions.create(model=MODEL, messages=messages, max_tokens=1)
        assert counted == len(ids) == reply.usage.prompt_tokens

    def test_counts_are_exact_and_know_the_window(self, worker: Worker) -> None:
        """The packaged model's counts are its own."""
        counter = RemoteCounter(worker.client, "smollm2")
        assert counter.texts(["hello", ""]) == [1, 0]
        assert (counter.exact, counter.window) == (True, 8192)

    def test_counting_does_not_wait_for_the_model(self, cache: Path) -> None:
        """A worker counts as soon as it listens, and dying takes nothing with it but exactness."""
        with running(cache) as fresh:
            health = fresh.until(lambda health: True)
            before = RemoteCounter(fresh.client, "smollm2")
            assert before.texts(["hello there"]) == [2]
            assert health.state == "loading"
            fresh.process.send_signal(signal.SIGKILL)
            fresh.process.wait()
            after = RemoteCounter(fresh.client, "smollm2")
            assert after.texts(["a text never counted before"])[0] >= 5
            assert (before.exact, after.exact) == (True, False)


class TestScores:
    def test_scores_cover_the_text(self, worker: Worker) -> None:
        """Likely words carry little, and offsets are the text's own."""
        text = "The capital of France is Paris. 日本 🎉"
        (scores,) = RemoteScorer(worker.client).score([text])
        tokens = [text[start:end] for start, end in zip(scores.starts, scores.ends, strict=True)]
        by_token = dict(zip(tokens, scores.nats, strict=True))
        assert scores.ends[-1] == len(text)
        assert by_token[" Paris"] < 1 < by_token[" capital"]

    def test_a_deadline_is_kept(self, worker: Worker) -> None:
        """Scores that cannot be there in time are not begun; those scored before are there at once."""
        scorer, text = RemoteScorer(worker.client), "Something that was never said before. " * 20
        with pytest.raises(Unavailable, match="deadline"):
            scorer.score([text], deadline=0.001)
        scores = scorer.score([text])
        assert scorer.score([text], deadline=0.001) == scores
        assert scorer.name == worker.client.health().scorer


class TestChat:
    def test_streamed_and_whole_replies_are_equal(self, sdk: openai.OpenAI) -> None:
        """The same text, end and usage, however it is sent."""
        asked: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 24}
        whole = sdk.chat.completions.create(**asked)
        chunks = list(sdk.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        assert "Paris" in whole.choices[0].message.content
        assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == whole.choices[0].message.content
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
        assert chunks[-1].usage == whole.usage
        assert all(chunk.usage is None for chunk in chunks[:-1])
        assert len({chunk.id for chunk in chunks}) == 1

    def test_the_next_turn_of_a_session_reads_only_what_is_new(self, sdk: openai.OpenAI) -> None:
        """The session's cached prefix is used, reported, and changes no word of the reply."""
        long = [{"role": "user", "content": "Note: " + "the ship sails at noon. " * 100}, *QUESTION]
        asked: dict[str, Any] = {"model": MODEL, "messages": long, "temperature": 0, "max_tokens": 12}
        named = {"x-ctxmem-session": "s-1"}
        first, second = (sdk.chat.completions.create(**asked, extra_headers=named) for _ in range(2))
        assert first.usage.prompt_tokens_details.cached_tokens == 0
        assert second.usage.prompt_tokens_details.cached_tokens == 512
        assert second.choices[0].message.content == first.choices[0].message.content

    def test_several_choices(self, sdk: openai.OpenAI) -> None:
        """Each choice is drawn on its own, repeatably under a seed, and the usage counts them all."""
        asked: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "n": 2, "seed": 5, "temperature": 1.5}
        replies = [sdk.chat.completions.create(**asked, max_tokens=8) for _ in range(2)]
        texts = [[choice.message.content for choice in reply.choices] for reply in replies]
        assert texts[0] == texts[1]
        assert texts[0][0] != texts[0][1]
        assert [choice.index for choice in replies[0].choices] == [0, 1]
        chunks = list(sdk.chat.completions.create(**asked, max_tokens=8, stream=True))
        streamed = [c.choices[0] for c in chunks]
        assert ["".join(c.delta.content or "" for c in streamed if c.index == i) for i in (0, 1)] == texts[0]

    def test_stop_strings_and_log_probabilities(self, sdk: openai.OpenAI) -> None:
        """The reply ends before the stop string; each token has its probability and alternatives."""
        reply = sdk.chat.completions.create(
            model=MODEL, messages=QUESTION, temperature=0, stop=["Paris"], logprobs=True, top_logprobs=2
        )
        (choice,) = reply.choices
        assert choice.message.content == "The capital of France is "
        assert choice.finish_reason == "stop"
        first = choice.logprobs.content[0]
        assert (first.token, bytes(first.bytes)) == ("The", b"The")
        assert first.logprob == first.top_logprobs[0].logprob > first.top_logprobs[1].logprob

    def test_models_are_listed(self, sdk: openai.OpenAI) -> None:
        """The one model there is."""
        assert [model.id for model in sdk.models.list()] == [MODEL]


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "param"),
        [
            ({"temperature": 9}, "temperature"),
            ({"messages": []}, "messages"),
            ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
            (
                {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
                "messages[0].content",
            ),
            ({"messages": [{"role": "user", "content": "word " * 9000}]}, "messages"),
            ({"response_format": {"type": "json_object"}}, "response_format"),
            ({"tool_choice": "required", "tools": TOOLS}, "tool_choice"),
            ({"tools": {"type": "function"}}, "tools"),
            ({"n": 100}, "n"),
            ({"max_tokens": 0}, "max_tokens"),
            ({"frequency_penalty": 1.0}, "frequency_penalty"),
        ],
    )
    def test_what_cannot_be_done_is_a_bad_request(self, sdk: openai.OpenAI, change: dict[str, Any], param: str) -> None:
        """An OpenAI error object that names the field."""
        with pytest.raises(openai.BadRequestError) as raised:
            sdk.chat.completions.create(**{"model": MODEL, "messages": QUESTION, **change})
        assert raised.value.param == param

    def test_a_prompt_over_the_window_has_openais_code(self, sdk: openai.OpenAI) -> None:
        """Clients branch on the code."""
        with pytest.raises(openai.BadRequestError) as raised:
            sdk.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "word " * 9000}], stream=True
            )
        assert raised.value.code == "context_length_exceeded"

    def test_another_model_is_not_found(self, sdk: openai.OpenAI) -> None:
        """Nothing is answered in another model's name."""
        with pytest.raises(openai.NotFoundError):
            sdk.chat.completions.create(model="gpt-9", messages=QUESTION)

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model":1}', b'{"messages":[{"a":\xff}]}', b"[" * 5000])
    def test_malformed_bodies_are_bad_requests(self, worker: Worker, body: bytes) -> None:
        """Never a 500."""
        with worker.posted(body) as response:
            assert response.status == 400
            assert json.loads(response.read())["error"]["type"] == "invalid_request_error"

    def test_fields_of_other_servers_are_ignored(self, sdk: openai.OpenAI) -> None:
        """What changes nothing a server must honour is let through."""
        extra = {"top_k": 5, "cache_salt": "x", "metadata": {"a": "b"}, "seed": None, "store": True}
        reply = sdk.chat.completions.create(
            model="smollm2", messages=QUESTION, tools=TOOLS, max_tokens=1, extra_body=extra
        )
        assert reply.usage.completion_tokens == 1


class TestLoad:
    def test_a_client_that_goes_away_frees_the_model(self, worker: Worker) -> None:
        """Streamed or not, begun or not: the work ends with its connection."""
        endless = {"model": MODEL, "messages": TALK, "max_tokens": 4000, "temperature": 2.0, "n": 8}
        with worker.posted({**endless, "stream": True}) as response:
            assert response.read(5) == b"data:"
        waiting = UnixConnection(str(worker.socket), timeout=30)
        waiting.request("POST", "/v1/chat/completions", json.dumps(endless).encode())
        worker.until(lambda health: health.queue > 0)
        waiting.close()
        assert worker.until(lambda health: health.queue == 0).state == "ready"

    def test_more_chats_than_there_is_room_for_are_asked_to_come_back(self, worker: Worker) -> None:
        """The bounded queue refuses with 503 and a time; who was admitted is served."""
        asked = {"model": MODEL, "messages": QUESTION, "max_tokens": 4000, "temperature": 2.0, "n": 8}
        held = [UnixConnection(str(worker.socket), timeout=30) for _ in range(32)]
        try:
            for connection in held:
                connection.request("POST", "/v1/chat/completions", json.dumps(asked).encode())
            worker.until(lambda health: health.queue == 32)
            with worker.posted(asked) as response:
                assert response.status == 503
                assert int(response.headers["retry-after"]) >= 1
                assert json.loads(response.read())["error"]["code"] == "overloaded"
            assert RemoteCounter(worker.client, "smollm2").texts(["counted while the model is busy"]) == [7]
        finally:
            for connection in held:
                connection.close()
        worker.until(lambda health: health.queue == 0)

    def test_sigterm_finishes_the_reply_under_way(self, cache: Path) -> None:
        """The stream ends with its last event, then the process, and the socket is gone."""
        with running(cache) as leaving:
            leaving.until(lambda health: health.state == "ready")
            asked = {"model": MODEL, "messages": QUESTION, "max_tokens": 20, "temperature": 0, "stream": True}
            with leaving.posted(asked) as response:
                begun = response.read(5)
                leaving.process.send_signal(signal.SIGTERM)
                events = begun + response.read()
            assert events.endswith(b"data: [DONE]\n\n")
            assert leaving.process.wait(30) == 0
            assert not leaving.socket.exists()

    def test_a_second_worker_does_not_take_the_socket(self, worker: Worker, cache: Path) -> None:
        """Two workers on one socket would each think they are the one."""
        argv = [sys.executable, "-m", "service.worker", "--socket", str(worker.socket), "--cache-dir", str(cache)]
        second = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode != 0
        assert "another model worker listens" in second.stderr
        assert worker.client.health().state == "ready"

    def test_scoring_slips_between_the_tokens_of_a_chat(self, worker: Worker, sdk: openai.OpenAI) -> None:
        """A chat in progress does not keep a scoring with a deadline waiting for its end."""
        chunks = sdk.chat.completions.create(model=MODEL, messages=TALK, stream=True, max_tokens=60, temperature=2.0)
        next(chunks)
        done = threading.Event()
        drain = threading.Thread(target=lambda: (list(chunks), done.set()))
        drain.start()
        RemoteScorer(worker.client).score([f"Never scored before {time.monotonic()}"], deadline=10.0)
        assert not done.is_set()
        drain.join()


def _plain(content: Any) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)
