"""Control store: tenants, plans, API keys, operators and the audit log, and snapshots of them for the data path.

Modules that use SQLAlchemy need the extra `control` (`pip install otelwp-agent[control]`). `api_keys`, `pepper` and
`directory` do not use it.
"""
