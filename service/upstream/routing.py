"""Which upstream serves a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from service.errors import UnknownModel
from service.upstream.client import UpstreamClient


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes.

    Attributes:
        upstream: the client to send with.
        model: the model's name there.
    """

    upstream: UpstreamClient
    model: str


def route(upstreams: Mapping[str, UpstreamClient], model: str) -> Route:
    """Find the upstream for a model.

    `name/model` names the upstream; else the first one that lists the model, else the first that takes any (`*`).

    Raises:
        UnknownModel: none does.
    """
    listed = next((each for each in upstreams.values() if model in each.settings.models), None)
    if listed is not None:
        return Route(listed, model)
    name, slash, rest = model.partition("/")
    if slash and rest and name in upstreams and _serves(upstreams[name], rest):
        return Route(upstreams[name], rest)
    anything = next((each for each in upstreams.values() if "*" in each.settings.models), None)
    if anything is None:
        raise UnknownModel(model)
    return Route(anything, model)


def _serves(upstream: UpstreamClient, model: str) -> bool:
    return model in upstream.settings.models or "*" in upstream.settings.models
