import subprocess
import sys

PROGRAM = """
import os
import sys
from otelwp_agent.transport.grpc_runtime import CODES, grpc
channel = grpc.secure_channel("127.0.0.1:1", grpc.ssl_channel_credentials(b"rubbish"))
try:
    channel.unary_unary("/a.B/C")(b"", timeout=60)
except grpc.RpcError as error:
    print(error.code().name, CODES[14].name)
"""


def test_grpcios_core_writes_nothing_past_the_log():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "UNAVAILABLE UNAVAILABLE\n"
    assert done.stderr == ""


def test_nothing_of_ours_imports_grpcio_before_it_is_used():
    program = (
        "import sys, otelwp_agent.receivers.otlp, otelwp_agent.exporters.otlp_grpc, otelwp_agent.transport.tls;"
        "print('grpc' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "False\n"
