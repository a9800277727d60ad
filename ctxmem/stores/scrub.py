"""Getting erased words out of SQLite's files, where deleting rows alone leaves some.

`PRAGMA secure_delete` overwrites a row that is deleted. But SQLite moves rows from page to page as tables grow and
shrink, and what stood where a row was moved from stays in the page's unused space until that is used again. Writing the
whole file anew takes these away too (https://sqlite.org/lang_vacuum.html, reason 4), and emptying the write-ahead log
takes away the pages as they were before.
"""

from __future__ import annotations

import logging

from sqlalchemy import Connection

MOST_BYTES = 128 * 2**20
"""Size of the largest database that is written anew; it takes two to three seconds, in which other writes wait."""

_LOG = logging.getLogger(__name__)


def scrub(connection: Connection, *, rewrite: bool) -> None:
    """Take what was deleted out of the files; what could not be done is logged as a warning.

    Args:
        connection: to an SQLite database, outside a transaction.
        rewrite: write the file anew, too, unless it is larger than `MOST_BYTES`.

    Raises:
        StoreError: under `mapped`, when others keep writing for longer than a lock is waited for.
    """
    if rewrite:
        size = int(connection.exec_driver_sql("PRAGMA page_count").scalar_one()) * _page_size(connection)
        if size <= MOST_BYTES:
            connection.exec_driver_sql("VACUUM")
        else:
            _LOG.warning(
                "a database of %d MB is not written anew after an erasure: unused space in its pages may hold erased"
                " words until you run VACUUM",
                size >> 20,
            )
    busy, _, _ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
    if busy:
        _LOG.warning("the write-ahead log is being read and keeps erased words until it is next emptied")


def _page_size(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA page_size").scalar_one())
