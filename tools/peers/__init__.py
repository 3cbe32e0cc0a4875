"""The real peers that `make interop` tests against: fetched and built once, kept outside the repository.

Each function returns what can be started (`golang.collector`, `golang.jaeger`, `golang.jaeger_1`, `maven.zipkin`,
`debian.wordpress`), from the cache if it is there. Where a tool or the network is missing they raise `cache.Missing`,
which says what. `python -m peers` (in `tools/`) gets all of them and shows what came of it.
"""
