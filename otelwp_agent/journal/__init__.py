"""The write-ahead journal: every acknowledged request is on disk until each of its items is settled (docs/adr/0006).

`records` defines the format, `segment` one file, `segments` the open directory, `mark` how far acknowledged entries
reach, `entry_store` the state of each entry, `admission` and `commits` write requests, `commit_builder` and
`pending_changes` make up one commit, `failure` handles failed writes, `claims` tracks one request; `opening`,
`recovery`, `audit` and `verify` read a directory. `pipeline.intake` connects receivers and pipelines to it.
"""
