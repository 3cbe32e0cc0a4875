"""Errors of the control store. Each message says what to do.

::

    AgentError
    ├── StoreError                    the store cannot be used
    │   ├── StoreVersionError         it was written by a newer version of the agent
    │   ├── StoreNotMigratedError     it does not exist yet, or was written by an older version
    │   │   └── StoreMissingError     there is no file at its place
    │   ├── StoreReadOnlyError        it cannot be written
    │   ├── StoreLockedError          another process has locked it for too long
    │   ├── StoreCorruptError         its file is damaged, or is not a control store
    │   ├── StoreUnreachableError     the database cannot be reached now
    │   ├── PepperError               the pepper is missing, unreadable or not the one of this store
    │   └── SnapshotError             the copy of the directory in a file cannot be written or used
    └── OperationError                the operation was refused, and nothing was changed
        ├── UnknownNameError          no object has this name
        ├── ConflictError             the state of an object does not allow it
        └── InvalidValueError         a value is invalid
"""

from __future__ import annotations

from otelwp_agent.errors import AgentError


class StoreError(AgentError):
    """The control store cannot be used."""


class StoreVersionError(StoreError):
    """The store was written by a newer version of the agent."""


class StoreNotMigratedError(StoreError):
    """The store does not exist yet, or was written by an older version of the agent."""


class StoreMissingError(StoreNotMigratedError):
    """There is no file at the place of the store."""


class StoreReadOnlyError(StoreError):
    """The store cannot be written."""


class StoreLockedError(StoreError):
    """Another process has locked the store for too long."""


class StoreCorruptError(StoreError):
    """The store's file is damaged, or is not a control store."""


class StoreUnreachableError(StoreError):
    """The database cannot be reached now."""


class PepperError(StoreError):
    """The pepper is missing, unreadable or not the one that this store was created with."""


class SnapshotError(StoreError):
    """The copy of the directory in a file cannot be written or used."""


class OperationError(AgentError):
    """The operation was refused, and nothing was changed."""


class UnknownNameError(OperationError):
    """No object has this name."""


class ConflictError(OperationError):
    """The state of an object does not allow the operation."""


class InvalidValueError(OperationError):
    """A value is invalid."""
