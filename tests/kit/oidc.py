"""An OpenID Connect issuer on loopback, with real keys, and tokens signed with them, right or wrong."""

import base64
import contextlib
import functools
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from otelwp_agent.component import Kind
from otelwp_agent.errors import RetryableError, UnauthenticatedError
from otelwp_agent.extensions.oidc import FACTORY, Config
from otelwp_agent.testing.fakes import make_context
from tests.kit.graphs import until

AUDIENCE = "telemetry"
DISCOVERY = "/.well-known/openid-configuration"
PATIENCE = 20.0
_CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}


@functools.cache
def private_key(algorithm, number=0, bits=2048):
    """Return a private key for an algorithm; `number` selects another one of the same kind."""
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm]())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, bits)


class SigningKey:
    """A key of an issuer, with its id."""

    def __init__(self, kid, algorithm="RS256", number=0, bits=2048):
        self.kid, self.algorithm = kid, algorithm
        self.private = private_key("RS256" if algorithm[:2] in {"RS", "PS"} else algorithm, number, bits)

    def jwk(self, **members):
        """Return the public key as a JWK; a member that is `None` is left out."""
        found = jwt.get_algorithm_by_name(self.algorithm).to_jwk(self.private.public_key(), as_dict=True)
        found.pop("key_ops", None)
        found = {**found, "kid": self.kid, "use": "sig", "alg": self.algorithm, **members}
        return {name: value for name, value in found.items() if value is not None}

    def token(self, claims, **header):
        """Return a signed token."""
        return jwt.encode(claims, self.private, self.algorithm, {"kid": self.kid, **header})

    def sign(self, header, payload):
        """Return an RS256 token of these bytes, whatever they are."""
        signed = f"{encoded(header)}.{encoded(payload)}"
        return f"{signed}.{encoded(self.private.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def encoded(data):
    """Return bytes, or a value as JSON, in base64url without padding."""
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Issuer:
    """Serves the discovery document and the keys; a test changes both while it runs."""

    def __init__(self, *keys, tls=None, path=""):
        self.keys = [*keys]
        self.changes = {}
        """Members of the discovery document that replace the right ones; `None` leaves one out."""
        self.answers = {}
        """Path to (status, headers, body): answers that replace the right ones."""
        self.open = threading.Event()
        """While it is cleared, requests are not answered."""
        self.open.set()
        self.seen = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}{path}"

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.open.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def claims(self, **changes):
        """Return claims that are valid now; a claim that is `None` is left out."""
        now = int(time.time())
        right = {"iss": self.url, "aud": AUDIENCE, "sub": "agent-1", "iat": now, "exp": now + 300}
        return {name: value for name, value in {**right, **changes}.items() if value is not None}

    def token(self, key=None, header=None, **changes):
        """Return a token signed with `key`, or with the first of the keys."""
        return (key or self.keys[0]).token(self.claims(**changes), **(header or {}))

    @property
    def fetches(self):
        """Number of requests for the keys."""
        return self.seen.count("/keys")

    def _answer(self, path):
        if path in self.answers:
            return self.answers[path]
        if path == "/keys":
            return 200, {}, json.dumps({"keys": [k if isinstance(k, dict) else k.jwk() for k in self.keys]}).encode()
        if path.endswith(DISCOVERY):
            base = self.url.partition("://")
            origin = base[0] + "://" + base[2].partition("/")[0]
            right = {"issuer": self.url, "jwks_uri": f"{origin}/keys", **self.changes}
            return 200, {}, json.dumps({name: value for name, value in right.items() if value is not None}).encode()
        return 404, {}, b""

    def _handler(self):
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                issuer.seen.append(self.path)
                issuer.open.wait(PATIENCE)
                status, headers, body = issuer._answer(self.path)
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    for name, value in {"Content-Length": str(len(body)), **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_):
                """Say nothing."""

        return Handler


@contextlib.asynccontextmanager
async def running(issuer, *, wait=True, clock=None, **settings):
    """Start the extension; with `wait`, until it has keys."""
    config = {"issuer_url": issuer.url, "audience": AUDIENCE, **settings}
    context = make_context(Kind.EXTENSION, "oidc", **({"clock": clock} if clock else {}))
    extension = FACTORY.build(Config.model_validate(config), context)
    await extension.start()
    try:
        if wait:
            await until(lambda: extension.health().healthy)
        yield extension
    finally:
        await extension.shutdown()
        await extension.shutdown()


def client(extension, token, header="authorization"):
    """Authenticate with a token; return its client."""
    return extension.authenticate({header: f"Bearer {token}"}, "10.0.0.1", None)


def outcome(extension, token):
    """Return the status that a token gets."""
    try:
        client(extension, token)
    except UnauthenticatedError:
        return 401
    except RetryableError:
        return 503
    return 200


def refusals(extension, reason):
    """Return how many tokens were refused for a reason."""
    return extension.context.registry.value("otelwp_oidc_refusals", extension="oidc", reason=reason)
