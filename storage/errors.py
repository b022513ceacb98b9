"""What can go wrong in the store, as one line each that a user can act on."""

from __future__ import annotations


class StorageError(RuntimeError):
    """Anything the store refuses or cannot do; the message is one line."""


class StorageFull(StorageError):
    """The file system of the store has no room (or no quota) left."""


class ArtifactMissing(StorageError):
    """The key has no whole artifact in this store."""


class TableError(StorageError):
    """Rows that do not fit the table's schema."""


class QueryError(StorageError):
    """SQL that DuckDB cannot run."""


class QueryRefused(QueryError):
    """SQL that is not one reading statement."""
