"""The control plane: thin handlers, one module a subject. The manager does the work."""

from __future__ import annotations

from service.routes import health

ALL = (health.router,)
"""Every router, in the order they are tried."""
