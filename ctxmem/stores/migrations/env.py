"""What Alembic runs around the revisions: on the connection it is given, inside the caller's transaction."""

from alembic import context

from ctxmem.stores.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
