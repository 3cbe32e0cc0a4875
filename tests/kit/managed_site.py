"""A managed collector and the agent of an enterprise customer, as the examples configure them, on free ports."""

import http.client
import json
import time
from contextlib import closing
from pathlib import Path

import grpc
import yaml

from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.licensing.public_keys import encode_base64url
from otelwp_agent.model.signal import Signal
from otelwp_agent.sealing.key_files import opening_keys_text
from otelwp_agent.sealing.rotation import new_key
from otelwp_agent.sealing.suites import SealingSuite
from tests.kit.agent import PATIENCE, Agent
from tests.kit.commands import run_command

EXAMPLES = Path(__file__).parents[2] / "examples"
SPANS = 4
BODY = Sample(spans_per_trace=SPANS, seed=1).make(Signal.TRACES, 1, 1_760_000_000_000_000_000)
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


def example(name, folder):
    """Return an example as data, with its state below `folder`."""
    text = (EXAMPLES / f"{name}.yaml").read_text("utf-8")
    return yaml.safe_load(text.replace("${env:OTELWP_STATE:-", f"{folder}/${{env:OTELWP_STATE:-"))


class Site:
    """The agent of the example, on free ports and in a folder of its own."""

    def __init__(self, folder, *, store="", change=lambda _config: None):
        config = example("managed_collector", folder)
        config["extensions"]["control_store"]["url"] = store or f"sqlite:///{folder}/state/control.db"
        if store:
            config["extensions"]["control_store"]["pepper_file"] = f"{folder}/pepper"
        config["extensions"]["rate_limiter"]["ban"]["failures"] = 1000
        for name in ("admin_api", "health_check"):
            config["extensions"][name]["endpoint"] = "127.0.0.1:0"
        for protocol in config["receivers"]["otlp"]["protocols"].values():
            protocol["endpoint"] = "127.0.0.1:0"
        config["service"]["control_socket"] = f"{folder}/control.sock"
        change(config)
        self.agent = Agent(yaml.safe_dump(config), folder, name="collector", metrics=True)
        self.token = ""

    def cli(self, *words, json_output=True):
        done = run_command(*words, "--config", self.agent.file, *(["--json"] if json_output else []))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if json_output else done.stdout.strip()

    def admin(self, method, path, body=None):
        """Return the status and the JSON of an answer of the admin API."""
        port = self.agent.wait_for("admin API listening")["port"]
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
            connection.request(method, f"/api/v1{path}", None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"null")

    def post(self, key, header="authorization", body=BODY):
        value = f"Bearer {key}" if header == "authorization" else key
        headers = {"content-type": "application/x-protobuf", header: value}
        with closing(http.client.HTTPConnection("127.0.0.1", self.agent.port("http"), timeout=PATIENCE)) as connection:
            connection.request("POST", "/v1/traces", body, headers)
            response = connection.getresponse()
            response.read()
            return response.status

    def call(self, key):
        with grpc.insecure_channel(f"127.0.0.1:{self.agent.port('grpc')}") as channel:
            try:
                channel.unary_unary(EXPORT)(BODY, timeout=PATIENCE, metadata=(("x-api-key", key),))
            except grpc.RpcError as error:
                return error.code()
        return grpc.StatusCode.OK

    def answers_at_last(self, key, wanted):
        """Wait until the agent has read a change of the key from the store; return whether it answers as `wanted`."""
        end = time.monotonic() + PATIENCE
        while (status := self.post(key)) != wanted and time.monotonic() < end:
            time.sleep(0.05)  # the agent reads the store in the background, without an event
        return status == wanted

    def sealing_key(self):
        """Return the key to seal to, as the log gives it at the first start."""
        created = self.agent.wait_for("sealing key created")
        return {"key_id": created["key_id"], "public_key": created["public_key"]}


def enterprise_agent(folder, site_port, *, customer, api_key, sealing_key, change=lambda _config: None):
    """Return the agent of `examples/enterprise.yaml`, which sends to the collector on a port."""
    config = example("enterprise", folder)
    config["receivers"]["otlp"]["protocols"]["http"]["endpoint"] = "127.0.0.1:0"
    config["receivers"]["jaeger_json"]["endpoint"] = "127.0.0.1:0"
    config["extensions"]["remote_sampling"]["endpoint"] = "127.0.0.1:0"
    config["processors"]["encryption"] |= {"customer_id": customer, "recipients": {"keys": [sealing_key]}}
    config["exporters"]["managed"] |= {
        "endpoint": f"http://127.0.0.1:{site_port}",
        "customer_id": customer,
        "api_key": api_key,
        "retry_on_failure": {"initial_interval": "50ms", "max_interval": "500ms"},
    }
    config["service"]["control_socket"] = f"{folder}/agent.sock"
    change(config)
    return Agent(yaml.safe_dump(config), folder, name="enterprise", metrics=True)


def new_keys(file):
    """Write a file with a new private key; return the public one as `recipients.keys` takes it."""
    key = new_key(SealingSuite.X25519, float(int(time.time()) - 1))
    file.write_bytes(opening_keys_text(1, [key]))
    return {"key_id": key.key_id, "public_key": encode_base64url(key.suite.public_bytes(key.private))}


def to(backend, config):
    """Send what a collector has opened to a backend."""
    config["exporters"] = {"otlp_http": {"endpoint": f"http://127.0.0.1:{backend.port}"}}
    for pipeline in config["service"]["pipelines"].values():
        pipeline["exporters"] = ["otlp_http"]


def whole(config):
    """Let the agent neither rename nor sample, so that spans can be compared."""
    for name in ("wordpress", "adaptive_sampling"):
        config["service"]["pipelines"]["traces"]["processors"].remove(name)


def forwards_to(site, config):
    """Let a collector have no keys, and forward envelopes to the customer's own collector."""
    config["receivers"]["otlp"]["sealed"] = {"mode": "forward"}
    config["processors"] = {"memory_limiter": config["processors"]["memory_limiter"]}
    own = {"endpoint": f"http://127.0.0.1:{site.agent.port('http')}", "customer_id": "acme", "api_key": site.key}
    config["exporters"] = {"managed": own}
    for pipeline in config["service"]["pipelines"].values():
        pipeline |= {"processors": ["memory_limiter"], "exporters": ["managed"]}
