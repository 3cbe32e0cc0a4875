"""The write-ahead journal: what was acknowledged is on disk until every item of it is settled (docs/adr/0006).

`records` is the format, `segment` one file, `segments` the open directory, `mark` how far acknowledged entries reach,
`shelf` the state of each entry, `admission` and `commits` the way in, `failure` what happens when the disk does not
accept a write, `claims` the account of one request, `intake` the connection to receivers and pipelines, `opening`,
`recovery`, `audit` and `verify` the reading of a directory.
"""
