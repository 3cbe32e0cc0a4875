"""The write-ahead journal: what was acknowledged is on disk until every item of it is settled.

`records` is the format, `segment` one file, `store` the directory, `journal` the group commit, `claims` the account of
one request, `intake` what a receiver hands over to, `audit` the proof (docs/adr/0006).
"""
