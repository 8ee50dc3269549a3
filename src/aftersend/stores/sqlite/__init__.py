"""The store on one machine: a folder of SQLite files."""

from aftersend.stores.sqlite.limits import Limits
from aftersend.stores.sqlite.store import SqliteStore

__all__ = ["Limits", "SqliteStore"]
