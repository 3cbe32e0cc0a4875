"""Statements of delivery: the items of a tenant that an agent has accepted, and their outcomes, signed.

`statement` is one of them, `signing` signs and verifies it, `chain` verifies the statements of a file, `accounts` makes
them from the ledgers, and `store` keeps them in a database. The page `docs/topics/statements.md` specifies the format.
"""
