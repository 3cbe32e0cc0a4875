"""The write-ahead journal: every acknowledged request is on disk until each of its items is settled.

`records` defines the format, `segment` one file, `shelf` the directory, `journal` the group commit, `claims` tracks one
request, `audit` proves the sums. `pipeline.intake` connects receivers to it (docs/adr/0006).
"""
