"""Configurations with many pipelines, written in short, and the lines at which a plan refuses them."""

import re

from otelwp_agent.components import Catalog
from otelwp_agent.config.load import load
from otelwp_agent.errors import ConfigError
from otelwp_agent.pipeline.plan import make_plan

HEAD = """\
receivers:
  otlp: {protocols: {http: }}
  zipkin:
  otlp/opening: {protocols: {http: }, sealed: {keys: keys.json, create: true}}
  otlp/forward: {protocols: {http: }, sealed: {mode: forward}}
processors:
  memory_limiter: {check_interval: 1s, limit_mib: 100}
  attributes: {actions: [{key: a, value: b, action: upsert}]}
  wordpress:
  probabilistic_sampler:
    sampling_percentage: 10
  probabilistic_sampler/half:
    sampling_percentage: 50
  adaptive_sampling: {target: {spans_per_second: 500}}
  batch:
  batch/2:
  compression:
  compression/2:
  encryption: &encryption
    customer_id: shop
    recipients: {keys: [{key_id: a, public_key: hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo}]}
  encryption/2: *encryption
exporters:
  jaeger: {endpoint: 'localhost:4317'}
  jaeger/2: {endpoint: 'localhost:4317'}
  zipkin: {endpoint: 'http://localhost:9411/api/v2/spans'}
  debug:
  file: {path: traces.jsonl}
  otlp_grpc: {endpoint: 'localhost:4317'}
  otlp_http: {endpoint: 'http://localhost:4318'}
  otlp_http/json:
    endpoint: 'http://localhost:4318'
    encoding: json
  managed: {endpoint: 'https://collector.example'}
  managed/merging:
    endpoint: 'https://collector.example'
    sending_queue:
      batch: {min_size: 100}
connectors:
  forward:
  forward/2:
service:
  tier: TIER
  pipelines:
"""


def configuration(tier, pipelines):
    """Return YAML for pipelines like `traces: otlp > batch > jaeger`, with one entry in each line."""
    text = HEAD.replace("TIER", tier)
    for line in pipelines.split("\n"):
        name, _, stages = line.strip().partition(": ")
        text += f"    {name}:\n"
        for listed, members in zip(("receivers", "processors", "exporters"), stages.split(">"), strict=True):
            entries = [member.strip() for member in members.split(",") if member.strip()]
            text += f"      {listed}:{'' if entries else ' []'}\n" + "".join(f"        - {one}\n" for one in entries)
    return text


def line_of(text, where):
    """Return the line of `pipeline: entry` or of a dotted path in the configuration."""
    lines = text.splitlines()
    name, entry, member = where.partition(": ")
    if entry:
        start = lines.index(f"    {name}:")
        return next(n for n in range(start, len(lines)) if lines[n].strip() == f"- {member}") + 1
    at = -1
    for depth, key in enumerate(where.split(".")):
        at = next(n for n in range(at + 1, len(lines)) if re.match(rf"{'  ' * depth}{re.escape(key)}:", lines[n]))
    return at + 1


def refused(text, catalog=None):
    """Return (line, message) of each problem."""
    catalog = catalog or Catalog()
    try:
        make_plan(load([f"yaml:{text}"], (), {}), catalog)
    except ConfigError as error:
        return [(problem.line, problem.message) for problem in error.problems]
    return []
