"""The registry of plugin installations in the control store: heartbeats, events, versions, toggles and their checks.

The tables are in `tables`; each other module has the operations on one subject. Like those in `control.operations`,
they take a connection in a transaction. Heartbeats and events are no changes: they are neither counted nor audited.
"""
