"""The gateway as a process: light, strict about its settings, patient when it is told to stop."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.service.conftest import Gateway, talk, wait_for
from tests.service.upstream import Until, Upstream, chunk, completion, delta, events, streamed, whole

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "faiss", "tokenizers", "tiktoken", "jinja2", "numpy", "requests", "httpx", "alembic"}
LIMIT = 80 * 2**20
"""Bytes the process may take once it has served."""


@contextlib.contextmanager
def process(data_dir: Path, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m service.gateway` with these settings."""
    told = {
        f"CTXMEM_{name.upper()}": value for name, value in {"data_dir": str(data_dir), "model": "", **settings}.items()
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CTXMEM_")}
    argv = [sys.executable, "-m", "service.gateway"]
    with subprocess.Popen(argv, cwd=ROOT, env={**kept, **told}, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def _port(running: subprocess.Popen[str]) -> int:
    """The port it says it listens on."""
    assert running.stderr is not None
    for line in running.stderr:
        if "running on http://" in line:
            return int(line.rsplit(":", 1)[1].split()[0])
    raise AssertionError("the gateway did not start")


@pytest.fixture
def ups(upstream: Upstream) -> str:
    return json.dumps([{"name": "up", "base_url": upstream.url}])


def test_it_is_light_after_it_has_served(tmp_path: Path, upstream: Upstream, ups: str) -> None:
    """Streams and answers, with memory on: under 80 MB."""
    with process(tmp_path, port="0", upstreams=ups) as running:
        ctx = Gateway(_port(running))
        for i in range(40):
            assert ctx.chat(talk(f"turn {i}", stream=i % 2 == 0), x_ctxmem_session=f"s{i % 4}").status == 200
        assert ctx.get("/readyz").json["status"] == "ok"
        assert psutil.Process(running.pid).memory_info().rss < LIMIT


def test_it_loads_nothing_heavy(tmp_path: Path) -> None:
    """Neither models nor their tokenizers; the web framework only for the control plane."""
    code = "import sys, service.gateway; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not (HEAVY | {"fastapi"}) & set(done.stdout.split())


def test_the_first_start_leaves_no_tools_in_memory(tmp_path: Path, upstream: Upstream, ups: str) -> None:
    """The tables are made by a process that is gone; nothing is left of it."""
    with process(tmp_path, port="0", upstreams=ups) as running:
        ctx = Gateway(_port(running))
        assert ctx.chat(talk("hi")).status == 200
        maps = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        assert not maps.exists() or maps.read_text().split() == []
    assert (tmp_path / "ctxmem.db").stat().st_size > 0


def test_told_to_stop_it_finishes_its_streams(tmp_path: Path, upstream: Upstream, ups: str) -> None:
    """SIGTERM: the stream in flight comes to its end, new clients are refused, the exit code is 0."""
    more = threading.Event()
    head = events(chunk(delta(role="assistant", content="Hel")), chunk(delta(content="lo")))
    upstream.answer = lambda request: streamed(head, Until(more), events(chunk(delta(finish="stop")), "[DONE]"))
    with process(tmp_path, port="0", upstreams=ups) as running:
        ctx = Gateway(_port(running))
        with ctx.client() as client:
            stream = client.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": "hi"}],
                stream=True,
                extra_headers={"x-ctxmem-session": "s"},
            )
            said = [next(stream).choices[0].delta.content]
            running.send_signal(signal.SIGTERM)
            assert wait_for(lambda: not _listens(ctx))
            assert running.poll() is None
            more.set()
            said += [piece.choices[0].delta.content for piece in stream]
        assert running.wait(20) == 0
    assert "".join(filter(None, said)) == "Hello"
    with process(tmp_path, port="0", upstreams=ups) as again:
        kept = Gateway(_port(again), key=ctx.key)
        assert kept.get("/v1/sessions/s/events").json["events"][-1]["message"]["content"] == "Hello"


@pytest.mark.parametrize(
    ("settings", "code", "told"),
    [
        ({"prot": "1"}, 2, "CTXMEM_PROT"),
        ({"host": "0.0.0.0"}, 2, "keys_file"),
        ({"keys_file": "/nowhere/keys"}, 1, "keys file"),
        ({"upstreams": '[{"name":"up","base_url":"http://x/v1","key_env":"NOT_SET_ANYWHERE"}]'}, 1, "NOT_SET_ANYWHERE"),
        ({"database_url": "mysql://x/y"}, 1, "database"),
        ({"policy": "nobody-knows"}, 1, "policy"),
    ],
)
def test_wrong_settings_stop_the_start(tmp_path: Path, settings: dict[str, str], code: int, told: str) -> None:
    """With one line that says what is wrong, and no traceback."""
    with process(tmp_path, **settings) as running:
        assert running.stderr is not None
        output = running.stderr.read()
        assert running.wait(20) == code
    assert told in output
    assert "Traceback" not in output


def test_a_taken_port_stops_the_start(tmp_path: Path, ctx: Gateway) -> None:
    """The other service goes on."""
    with process(tmp_path, port=str(ctx.port)) as running:
        assert running.wait(20) == 1
    assert ctx.get("/livez").status == 200


def test_a_client_sees_what_a_newcomer_sees(tmp_path: Path, upstream: Upstream, ups: str) -> None:
    """The official client, pointed at the base URL, with the key of the first start."""
    upstream.answer = lambda request: whole(completion("Welcome."))
    with process(tmp_path, port="0", upstreams=ups) as running:
        port = _port(running)
        key = (tmp_path / "key").read_text().strip()
        with Gateway(port, key=key).client() as client:
            said = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
        assert said.choices[0].message.content == "Welcome."
        assert len(Gateway(port, key="").get("/v1/sessions").json["sessions"]) == 1


def _listens(ctx: Gateway) -> bool:
    try:
        ctx.connect().close()
    except OSError:
        return False
    return True
