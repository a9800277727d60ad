"""The control plane: thin handlers, one module a subject. The manager does the work."""

from __future__ import annotations

from service.routes import context, documents, entities, memories, models, requests, rerank, scopes, sessions

ALL = (
    *(models.router, context.router, sessions.router, requests.router),
    *(entities.router, memories.router, documents.router, rerank.router, scopes.router),
)
"""Every router, in the order they are tried."""
