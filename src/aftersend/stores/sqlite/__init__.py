"""The store on one machine: a folder of SQLite files."""

from aftersend.stores.sqlite.limits import DEFAULT_LIMITS, Limits
from aftersend.stores.sqlite.store import SqliteStore

__all__ = ["DEFAULT_LIMITS", "Limits", "SqliteStore"]
