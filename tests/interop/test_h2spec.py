"""The HTTP/2 server of gRPC against h2spec: every case passes, or is listed with the reason."""

import subprocess
import xml.etree.ElementTree as ET

import pytest
from peers import golang

from tests.interop.process import have
from tests.kit.agent import Agent
from tests.kit.certificates import Authority

pytestmark = pytest.mark.interop

CONFIG = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:0'{tls}}}}}}}
exporters:
  debug:
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [debug]}}
"""
CASES = 145
EXPECTED = {
    "Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE": (
        "the case sends 20 KB, which exceeds the default of 16 384 bytes, but not the 65 536 that our settings allow"
    ),
}
"""Cases that fail, with the reason."""


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_every_case(secure, tmp_path):
    pair = Authority(tmp_path).sign()
    tls = f", tls: {{cert_file: {pair.cert_file}, key_file: {pair.key_file}}}" if secure else ""
    with Agent(CONFIG.format(tls=tls), tmp_path) as agent:
        report = tmp_path / "report.xml"
        command = [have(golang.h2spec), "-h", "127.0.0.1", "-p", str(agent.port("grpc")), "-o", "2", "-j", report]
        done = subprocess.run(
            [*command, *(["-t", "-k"] if secure else [])], capture_output=True, text=True, check=False, timeout=300
        )
        cases = ET.parse(report).getroot().findall(".//testcase")
        assert len(cases) >= CASES, done.stdout
        failed = {
            case.get("classname")
            for case in cases
            if case.find("failure") is not None or case.find("error") is not None
        }
        assert failed == EXPECTED.keys(), done.stdout
