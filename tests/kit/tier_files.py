"""A configuration that uses what each tier enables, and the problems that a plan reports."""

import re

from otelwp_agent.components import Catalog
from otelwp_agent.config.load import load
from otelwp_agent.errors import ConfigError
from otelwp_agent.pipeline.plan import make_plan

FILE = """\
receivers:
  otlp:
    protocols:
      http:
processors:
  memory_limiter:
    check_interval: 1s
    limit_mib: 100
  probabilistic_sampler:
    sampling_percentage: 10
  adaptive_sampling:
    target:
      spans_per_second: 500
    sites:
      minimum: 60
  batch:
exporters:
  jaeger:
    endpoint: localhost:4317
  zipkin:
    endpoint: http://localhost:9411/api/v2/spans
  otlp:
    endpoint: localhost:4317
  debug:
  file:
    path: traces.jsonl
extensions:
  health_check:
  remote_sampling:
service:
  tier: {tier}
  journal:
    directory: journal
  extensions: [{extensions}]
  pipelines:
    traces:
      receivers: [otlp]
      processors: [{processors}]
      exporters: [{exporters}]
"""
"""What a test does not name in a list is not used."""


def file(tier="free", processors="memory_limiter", exporters="jaeger", extensions="health_check"):
    return FILE.format(tier=tier, processors=processors, exporters=exporters, extensions=extensions)


def problems(text, *sets, env=None, catalog=None):
    """Return the problems of a file, one string for each."""
    try:
        make_plan(load([f"yaml:{text}"], sets, env or {}), catalog or Catalog())
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def places(text, *sets, **given):
    """Return the line and the path of each problem."""
    return [re.match(r"yaml:(\d+):\d+: (\S+):", told).groups() for told in problems(text, *sets, **given)]
