"""Everything that can go wrong, as one tree; a class's docstring is its default message."""

from __future__ import annotations


class AftersendError(Exception):
    """Something went wrong."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class UsageError(AftersendError):
    """The command or request was put wrongly."""


class ConfigurationError(UsageError):
    """The configuration cannot be used."""


class UnknownDialectError(UsageError):
    """There is no such dialect; `aftersend types` lists them."""


class NotFoundError(UsageError):
    """There is nothing by that name."""


class ConflictError(UsageError):
    """That name is taken already."""


class AccessError(AftersendError):
    """The key is missing, wrong or revoked."""


class ScopeError(AccessError):
    """The key does not reach that far."""


class StoreError(AftersendError):
    """The store cannot be used."""


class StoreBusyError(StoreError):
    """Too much is waiting to be written; try again in a moment."""


class StoreFullError(StoreError):
    """The disk is full; free space, and the process goes on by itself."""


class StoreLockedError(StoreError):
    """Another process holds this store."""


class StoreVersionError(StoreError):
    """The store was written by a newer aftersend; install that version or newer."""


class EgressError(AftersendError):
    """That address must not be connected to."""


class EncodeError(AftersendError):
    """This event cannot be told in this dialect."""
