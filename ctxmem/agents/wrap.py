"""The agent SDK wrapper: an OpenAI or Anthropic client whose every turn goes through ctxmem."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ctxmem.errors import InvalidInput
from ctxmem.types import Budget

if TYPE_CHECKING:
    from ctxmem.manager import ContextManager

Client = TypeVar("Client")

_HOMES = ("openai", "anthropic")


def wrap(
    client: Client,
    manager: ContextManager | str,
    *,
    session: str | None = None,
    user: str = "",
    policy: str | None = None,
    budget: int | Budget | None = None,
) -> Client:
    """A copy of a client that manages the context of what it sends; the client given stays as it is.

    Chat completions, responses and messages are rewritten to the context that fits, streamed or not, and both what is
    said and what is answered is logged. Everything else passes. The messages that a call is given are never changed.
    Each raw response carries `x-ctxmem-request-id`, the name of its receipt.

    Args:
        client: `openai.OpenAI`, `AsyncOpenAI`, `anthropic.Anthropic` or `AsyncAnthropic`.
        manager: a manager, for work in this process; or the address of the service, such as `http://127.0.0.1:8787`.
        session: the session; None lets the history find it.
        user: whose session it is.
        policy: name of the policy; None for the default.
        budget: prompt tokens allowed; None for the model's window.

    Raises:
        InvalidInput: the client is of another kind, or an argument is wrong.
    """
    home = next((name for cls in type(client).__mro__ for name in _HOMES if cls.__module__.split(".")[0] == name), None)
    if home is None or not hasattr(client, "copy"):
        kinds = "openai.OpenAI, AsyncOpenAI, anthropic.Anthropic or AsyncAnthropic"
        raise InvalidInput(f"wrap takes {kinds}, got {type(client).__name__}", param="client")
    limits = Budget.of(budget)
    if isinstance(manager, str):
        return _served(client, home, manager, {"session": session, "user": user, "policy": policy}, limits)
    from ctxmem.agents.sdk import Turns, through

    checked = manager.session(session).id if session is not None else None
    turns = Turns(manager, session=checked, user=user, policy=policy, budget=limits)
    return through(client, turns)


def _served(client: Client, home: str, url: str, named: dict[str, str | None], limits: Budget | None) -> Client:
    """The client, pointed at the service."""
    if not url.startswith(("http://", "https://")):
        raise InvalidInput(f"manager must be a ContextManager or the service's address, got {url!r}", param="manager")
    headers = {f"x-ctxmem-{name}": value for name, value in named.items() if value}
    if limits is not None:
        headers["x-ctxmem-budget"] = str(limits.limit)
    root = url.rstrip("/").removesuffix("/v1")
    copied: Client = client.copy(  # type: ignore[attr-defined]  # checked by the caller
        base_url=f"{root}/v1" if home == "openai" else root, default_headers=headers
    )
    return copied
