"""Keys name tenants, and a tenant sees nothing of another: every route with every id of somebody else is a 404."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctxmem.errors import ConfigError
from service import auth
from service.errors import Unauthorized
from service.settings import Settings
from service.settings import Upstream as UpstreamSettings
from tests.service.conftest import Gateway, served, talk
from tests.service.upstream import Upstream


@pytest.fixture
def keyed(tmp_path: Path, upstream: Upstream) -> Iterator[Gateway]:
    """A gateway with two tenants, one of them with two keys."""
    keys = tmp_path / "keys"
    keys.write_text("# tenants\nred:red-key-1\n\nred:red-key-2\nblue: blue-key:with:colons \n")
    ups = (UpstreamSettings(name="up", base_url=upstream.url),)
    with served(Settings(data_dir=tmp_path, model="", port=0, upstreams=ups, keys_file=keys)) as running:
        yield running


def _as(gateway: Gateway, key: str) -> Gateway:
    return Gateway(gateway.port, gateway.app, key)


@pytest.mark.parametrize("key", ["wrong", "red-key", "red-key-11", "", "blue-key"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/sessions", "/v1/chat/completions"])
def test_without_a_known_key_nothing_is_served(keyed: Gateway, upstream: Upstream, key: str, path: str) -> None:
    """401 as OpenAI says it, before anything is read or sent."""
    stranger = _as(keyed, key)
    answer = stranger.chat(talk("hi")) if path.endswith("completions") else stranger.get(path)
    assert (answer.status, answer.error["code"], answer.error["type"]) == (
        401,
        "invalid_api_key",
        "authentication_error",
    )
    assert upstream.received == []


def test_every_key_of_a_tenant_sees_the_same(keyed: Gateway, upstream: Upstream) -> None:
    """And `x-api-key` is as good as a bearer token."""
    _as(keyed, "red-key-1").chat(talk("hi"), x_ctxmem_session="s")
    assert _as(keyed, "red-key-2").get("/v1/sessions/s").status == 200
    assert _as(keyed, "").get("/v1/sessions/s", authorization="", x_api_key="red-key-2").status == 200
    assert _as(keyed, "blue-key:with:colons").get("/v1/sessions/s").status == 404


def test_an_upstream_gets_its_own_key(tmp_path: Path, upstream: Upstream) -> None:
    """Whatever the client's is."""
    (tmp_path / "up.key").write_text("sk-of-the-upstream\n")
    up = UpstreamSettings(name="up", base_url=upstream.url, key_file=tmp_path / "up.key")
    with served(Settings(data_dir=tmp_path, model="", port=0, upstreams=(up,))) as running:
        for mode in ("on", "off"):
            running.chat(talk("hi"), x_ctxmem_mode=mode)
            assert upstream.last.headers["authorization"] == "Bearer sk-of-the-upstream"


def test_health_needs_no_key(keyed: Gateway) -> None:
    """Probes have none."""
    for path in ("/livez", "/readyz", "/metrics"):
        assert _as(keyed, "").get(path).status == 200


def test_nothing_of_another_tenant_can_be_reached(ctx: Gateway, upstream: Upstream) -> None:
    """Whatever the route, a foreign id is an unknown one."""
    answer = ctx.chat(talk("secret"), x_ctxmem_session="theirs", x_ctxmem_user="ann")
    request = answer.headers["x-ctxmem-request-id"]
    item = ctx.get(f"/v1/requests/{request}").json["items"][0]["item_id"]
    kept = ctx.post("/v1/compress", {"text": "some secret text", "ratio": 1.0}).json["item_id"]
    other = Gateway(ctx.port, ctx.app)
    for method, path in (
        ("GET", "/v1/sessions/theirs"),
        ("GET", "/v1/sessions/theirs/events"),
        ("GET", "/v1/sessions/theirs/export"),
        ("DELETE", "/v1/sessions/theirs"),
        ("GET", f"/v1/requests/{request}"),
        ("GET", f"/v1/items/{item}/restore"),
        ("GET", f"/v1/items/{kept}/restore"),
    ):
        assert other.ask(method, path).status == 404, path
    assert other.post(f"/v1/requests/{request}/replay", {}).status == 404
    assert other.get("/v1/requests?session_id=theirs").json == {"requests": []}
    assert other.get("/v1/sessions?user_id=ann").json == {"sessions": []}
    assert other.ask("DELETE", "/v1/entities/user/ann").json["counts"].get("sessions", 0) == 0
    assert ctx.get("/v1/sessions/theirs").status == 200


def test_the_same_session_name_is_two_sessions(ctx: Gateway, upstream: Upstream) -> None:
    """Naming another tenant's session opens one's own."""
    other = Gateway(ctx.port, ctx.app)
    ctx.chat(talk("mine"), x_ctxmem_session="s")
    other.chat(talk("yours"), x_ctxmem_session="s")
    assert [message["content"] for message in upstream.last.json["messages"]] == ["yours"]
    assert len(ctx.get("/v1/sessions/s/events").json["events"]) == 2


def test_the_same_history_is_two_sessions(ctx: Gateway, upstream: Upstream) -> None:
    """The chain of messages names a session within a tenant only."""
    other = Gateway(ctx.port, ctx.app)
    names = {each.chat(talk("same words")).headers["x-ctxmem-session"] for each in (ctx, other)}
    assert len(names) == 2


def test_no_secret_is_told(ctx: Gateway, upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    """Neither keys nor words of a conversation get into logs, metrics or errors."""
    canary = "canary-7f3a"
    ctx.chat(talk(canary), x_ctxmem_session=canary, x_ctxmem_user=canary)
    ctx.chat({"model": canary, "messages": [{"role": canary}]})
    ctx.chat(f'{{"model":"m","messages":[{{"role":"user","content":"{canary}'.encode())
    told = ctx.get("/metrics").body.decode() + ctx.get("/readyz").body.decode() + caplog.text
    assert canary not in told
    assert ctx.key not in told


def bearing(key: bytes) -> dict[bytes, bytes]:
    """Headers with a credential."""
    return {b"authorization": b"Bearer " + key}


class TestLocalMode:
    """Without a keys file, on loopback."""

    def test_the_first_start_makes_a_key_that_only_its_owner_reads(self, tmp_path: Path) -> None:
        """And later starts keep it."""
        key = auth.first_key(tmp_path)
        assert key.startswith("cm-")
        assert len(key) >= 40
        assert auth.first_key(tmp_path) == key
        assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600

    def test_the_key_and_no_key_are_the_default_tenant(self, tmp_path: Path) -> None:
        """Whoever can reach the port is the owner."""
        tenants = auth.tenants(Settings(data_dir=tmp_path))
        assert tenants.of({}) == tenants.of(bearing(auth.first_key(tmp_path).encode())) == auth.DEFAULT_TENANT

    @pytest.mark.parametrize(
        ("host", "origin", "mine"),
        [
            (b"127.0.0.1:8787", None, True),
            (b"localhost:8787", b"http://localhost:3000", True),
            (b"[::1]:8787", None, True),
            (b"127.0.0.1:8787", b"https://evil.example", False),
            (b"127.0.0.1:8787", b"null", False),
            (b"evil.example:8787", None, False),
            (b"localhost.evil.example", None, False),
        ],
    )
    def test_a_page_of_another_site_needs_the_key(
        self, tmp_path: Path, host: bytes, origin: bytes | None, mine: bool
    ) -> None:
        """A browser reaches this port for any page; only the owner has the key."""
        tenants = auth.tenants(Settings(data_dir=tmp_path))
        headers = {b"host": host} | ({b"origin": origin} if origin is not None else {})
        if mine:
            assert tenants.of(headers) == auth.DEFAULT_TENANT
        else:
            with pytest.raises(Unauthorized):
                tenants.of(headers)
        assert tenants.of(headers | bearing(auth.first_key(tmp_path).encode())) == auth.DEFAULT_TENANT

    def test_any_other_credential_is_a_tenant_of_its_own(self, tmp_path: Path) -> None:
        """The same one after a restart, and its name does not tell the credential."""
        settings = Settings(data_dir=tmp_path)
        first, second = (auth.tenants(settings).of(bearing(key)) for key in (b"sk-one", b"sk-two"))
        assert first != second
        assert auth.tenants(settings).of(bearing(b"sk-one")) == first
        assert "sk-one" not in first


class TestKeysFile:
    """What the file may say."""

    @pytest.mark.parametrize("text", ["", "# nothing\n", "no colon\n", ":key\n", "tenant:\n"])
    def test_a_file_without_sense_stops_the_start(self, tmp_path: Path, text: str) -> None:
        """Empty, or a line that is no pair."""
        keys = tmp_path / "keys"
        keys.write_text(text)
        with pytest.raises(ConfigError):
            auth.tenants(Settings(data_dir=tmp_path, keys_file=keys))

    def test_a_missing_file_stops_the_start(self, tmp_path: Path) -> None:
        """Rather than letting everyone in."""
        with pytest.raises(ConfigError):
            auth.tenants(Settings(data_dir=tmp_path, keys_file=tmp_path / "none"))

    def test_an_unknown_key_is_refused(self, tmp_path: Path) -> None:
        """A missing one too."""
        keys = tmp_path / "keys"
        keys.write_text("a:k\n")
        tenants = auth.tenants(Settings(data_dir=tmp_path, keys_file=keys))
        assert tenants.of(bearing(b"k")) == "a"
        for credential in (b"", b"K", b"kk"):
            with pytest.raises(Unauthorized):
                tenants.of(bearing(credential))
