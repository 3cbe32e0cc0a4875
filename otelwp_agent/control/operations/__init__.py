"""Operations on the control store, for commands and the admin API.

Each takes a connection in a transaction (`Store.write`, `StoreThread.write`; to read: `read`) and, if it changes
something, the `Actor`. It raises `OperationError` and then has changed nothing. Changes are written to the audit log.
"""
