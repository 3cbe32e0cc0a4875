"""A managed collector and the agent of an enterprise customer, as the examples configure them, on free ports."""

import http.client
import json
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import grpc
import yaml

from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.model.signal import Signal
from tests.kit.agent import PATIENCE, Agent

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
        command = [Path(sys.executable).with_name("otelwp-agent"), *words, "--config", self.agent.file]
        done = subprocess.run(
            [*command, *(["--json"] if json_output else [])], capture_output=True, text=True, check=False
        )
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

    def post(self, key, header="authorization"):
        value = f"Bearer {key}" if header == "authorization" else key
        headers = {"content-type": "application/x-protobuf", header: value}
        with closing(http.client.HTTPConnection("127.0.0.1", self.agent.port("http"), timeout=PATIENCE)) as connection:
            connection.request("POST", "/v1/traces", BODY, headers)
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
