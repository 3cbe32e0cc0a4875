"""Real peers for `make interop`: downloaded and built once, and stored outside the repository.

Each function (`golang.collector`, `golang.jaeger`, `golang.jaeger_1`, `golang.tracegen`, `golang.h2spec`,
`golang.opamp_agent`, `maven.zipkin`, `python.old_sdk`, `python.schemathesis`, `debian.wordpress`,
`debian.postgresql`, `debian.redis`, `debian.prometheus`, `debian.chromium`) returns a program that can be started, from
the cache if it is there. If a tool or the network is missing, it raises `cache.Missing` with the reason.
`python -m peers` (in `tools/`) gets all peers and prints the result.
"""
