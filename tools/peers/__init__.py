"""The real peers that `make interop` tests against: fetched and built once, kept outside the repository.

Each function (`golang.collector`, `golang.jaeger`, `golang.jaeger_1`, `golang.tracegen`, `maven.zipkin`,
`python.old_sdk`, `debian.wordpress`) returns what can be started, from the cache if it is there. Where a tool or the
network is missing they raise `cache.Missing`, which says what. `python -m peers` (in `tools/`) gets all of them and
shows what came of it.
"""
