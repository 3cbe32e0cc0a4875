"""Everything between a pipeline and an exporter: queue, concurrency, attempts, retry and circuit breaker."""
