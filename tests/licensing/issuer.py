"""An issuer of licences for tests, and times."""

from datetime import UTC, date, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from otelwp_agent.licensing.license import License
from otelwp_agent.licensing.public_keys import key_id
from otelwp_agent.licensing.signatures import generate_key, public_text, sign_license

DAY = 86400.0
START = datetime(2027, 1, 1, 12, tzinfo=UTC).timestamp()
"""The time at which tests begin."""


class Issuer:
    """Signs licences with a key of its own."""

    def __init__(self, seed=None):
        self.private = generate_key() if seed is None else Ed25519PrivateKey.from_private_bytes(seed)
        self.public = public_text(self.private)
        self.keys = {key_id(self.public): self.public}

    def terms(self, **changed):
        terms = {"jti": "shop-1", "sub": "Shop Ltd", "iat": int(START), "tier": "pro", "expires": date(2027, 12, 31)}
        return License(**terms | changed)

    def issue(self, **changed):
        return sign_license(self.terms(**changed), self.private)


ISSUER = Issuer(b"i" * 32)  # the same in each process, because texts of it are parameters of tests
