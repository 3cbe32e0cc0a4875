"""Statements of delivery: what an agent has accepted from a tenant, and what became of it, signed and chained.

`statement` is one of them, `signing` signs and verifies it, `chain` verifies the statements of a file, `accounts` makes
them from the ledgers, and `store` keeps them in a database. The page `docs/topics/statements.md` specifies the format.
"""
