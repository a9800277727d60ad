"""The peer proxies, as `bench/peers.sh` installs them: offline, quiet, one worker each."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.servers import Server, free_port
from bench.upstream import MODEL

KEY = "sk-bench-0123456789abcdef0123456789abcdef"
"""LiteLLM wants a master key; nothing but loopback servers ever sees it."""


def peers_folder() -> Path:
    """Where `bench/peers.sh` installs."""
    return Path(os.environ.get("CTXMEM_PEERS") or "~/.cache/ctxmem/peers").expanduser()


def litellm(folder: Path, upstream: Server) -> Server:
    """LiteLLM's proxy, one worker, offline, no logging."""
    config = folder / "litellm.json"  # JSON is YAML
    parameters = {"model": f"openai/{MODEL}", "api_base": upstream.url, "api_key": "none"}
    rows = [{"model_name": MODEL, "litellm_params": parameters}]
    config.write_text(json.dumps({"model_list": rows, "litellm_settings": {"telemetry": False}}))
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    argv = [str(peers_folder() / "litellm/bin/litellm"), "--config", str(config), "--host", "127.0.0.1"]
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR"}
    environment |= {"LITELLM_MASTER_KEY": KEY, "HOME": str(folder)}
    argv += ["--port", str(port), "--num_workers", "1"]
    return Server("litellm", argv, f"{base}/v1", f"{base}/health/liveliness", folder / "litellm.log", environment)


def headroom(folder: Path, upstream: Server, *, optimise: bool) -> Server:
    """The proxy of headroom without its answer cache and rate limit; as a plain proxy, or optimising."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    argv = [str(peers_folder() / "headroom/bin/headroom"), "proxy", "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--openai-api-url", upstream.url.removesuffix("/v1"), "--no-cache", "--no-rate-limit", "--no-telemetry"]
    argv += [] if optimise else ["--no-optimize"]
    name = "headroom optimising" if optimise else "headroom pass-through"
    environment = {"HF_HUB_OFFLINE": "1", "HOME": str(folder)}
    return Server(name, argv, f"{base}/v1", f"{base}/livez", folder / f"headroom-{optimise}.log", environment)


def installed(folder: Path, upstream: Server) -> list[Server]:
    """The peers that are there; says which are not."""
    made: dict[str, list[Callable[[], Server]]] = {
        "litellm": [partial(litellm, folder, upstream)],
        "headroom": [partial(headroom, folder, upstream, optimise=flag) for flag in (False, True)],
    }
    here = [name for name in made if (peers_folder() / name / "bin" / name).exists()]
    for name in made.keys() - set(here):
        print(f"{name} is not installed in {peers_folder()}: run bench/peers.sh")
    return [make() for name in here for make in made[name]]
