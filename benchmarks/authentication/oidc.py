"""Measure what `oidc` spends on a token: right ones, wrong ones of every kind, and a token that the gate has kept.

    python benchmarks/authentication/oidc.py [--rounds 2000]

CPU times are of the process, the best of three runs. Each wrong token is another one, so that nothing could be kept.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from otelwp_agent.component import Kind
from otelwp_agent.errors import UnauthenticatedError
from otelwp_agent.extensions.oidc import FACTORY, Config
from otelwp_agent.extensions.oidc.tokens import MAX_TOKEN
from otelwp_agent.testing.fakes import make_context
from otelwp_agent.transport.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

URL = "https://login.example"
KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def encoded(data: bytes) -> str:
    """Return bytes in base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(header: dict[str, Any], claims: dict[str, Any], signature: int = 256) -> str:
    """Return a token with a random signature of that many bytes."""
    return ".".join(
        [encoded(json.dumps(header).encode()), encoded(json.dumps(claims).encode()), encoded(os.urandom(signature))]
    )


def cpu(call: Callable[[str], object], values: Sequence[str]) -> float:
    """Return the CPU time of a call in µs, the best of three runs over `values`."""
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        for value in values:
            call(value)
        best = min(best, time.process_time() - began)
    return best / len(values) * 1e6


def measure(extension: Any, rounds: int) -> None:
    """Print the measurements."""

    def accept(token: str) -> None:
        extension.authenticate({"authorization": f"Bearer {token}"}, "", None)

    def refuse(token: str) -> None:
        try:
            accept(token)
        except UnauthenticatedError:
            return
        message = "a wrong token was accepted"
        raise AssertionError(message)

    now = int(time.time())
    claims = {
        "iss": URL,
        "aud": "a",
        "sub": "agent-1",
        "tenant": "shop",
        "scope": "ingest",
        "iat": now,
        "exp": now + 3600,
    }
    numbers = range(rounds)
    for name, key in KEYS.items():
        tokens = [jwt.encode({**claims, "jti": str(n)}, key, name, {"kid": name}) for n in range(100)]
        print(f"right, {name:24} {cpu(accept, tokens * max(1, rounds // 100)):8.1f} µs CPU")
    ids = [{**claims, "jti": str(n)} for n in numbers]
    header = {"alg": "RS256", "kid": "RS256", "typ": "JWT"}
    wrong = {
        "wrong: no token": ["x"] * rounds,
        "wrong: alg none": [forged({**header, "alg": "none"}, each, 0) for each in ids],
        "wrong: alg HS256": [forged({**header, "alg": "HS256"}, each, 32) for each in ids],
        "wrong: no kid": [forged({"alg": "RS256"}, each) for each in ids],
        "wrong: unknown kid": [forged({**header, "kid": f"k{n}"}, each) for n, each in enumerate(ids)],
        "wrong: issuer": [forged(header, {**each, "iss": f"https://{n}.example"}) for n, each in enumerate(ids)],
        "wrong: RS256 signature": [forged(header, each) for each in ids],
        "wrong: ES256 signature": [forged({"alg": "ES256", "kid": "ES256"}, each, 64) for each in ids],
        "wrong: EdDSA signature": [forged({"alg": "EdDSA", "kid": "EdDSA"}, each, 64) for each in ids],
        "wrong: 16 KiB, signature": [forged(header, {**each, "x": "y" * 11_500}) for each in ids],
        "wrong: 16 KiB of names": [
            forged(header, {**each, **{f"{n:03}": 1 for n in range(1050)}}) for each in ids[: rounds // 10]
        ],
        "wrong: 16 KiB of brackets": [f"{encoded(json.dumps(header).encode())}.{encoded(b'[' * 11_900)}.AA"] * rounds,
        "wrong: too long": ["x" * (MAX_TOKEN + 1)] * rounds,
    }
    for name, tokens in wrong.items():
        print(f"{name:31} {cpu(refuse, tokens):8.1f} µs CPU   ({len(tokens[0])} bytes)")
    gate = Gate(extension, log=structlog.get_logger())
    metadata = {"authorization": f"Bearer {jwt.encode(claims, KEYS['RS256'], 'RS256', {'kid': 'RS256'})}"}
    kept = cpu(lambda _: gate.enter_call(metadata, "", lambda: None, "Export"), [""] * rounds * 10)
    print(f"{'kept by the gate (gRPC call)':31} {kept:8.1f} µs CPU")


def main() -> None:
    """Make keys and measure."""
    parser = argparse.ArgumentParser(description="Measure the checks of tokens.")
    parser.add_argument("--rounds", type=int, default=2000)
    options = parser.parse_args()
    jwks = [
        {**jwt.get_algorithm_by_name(name).to_jwk(key.public_key(), as_dict=True), "kid": name}
        for name, key in KEYS.items()
    ]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("keys.json").write_text(json.dumps({"keys": jwks}), "utf-8")
        config = {"issuer_url": URL, "audience": "a", "tenant_claim": "tenant", "public_keys_file": "keys.json"}
        extension = FACTORY.build(Config.model_validate(config), make_context(Kind.EXTENSION, "oidc"))
        extension.refresh()
        measure(extension, options.rounds)


if __name__ == "__main__":
    main()
