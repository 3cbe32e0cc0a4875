"""Check passwords against the hashes of htpasswd files.

Plain text and `{SHA}`, `{SSHA}` need only the standard library. bcrypt (`$2y$`) and the formats of crypt (`$apr1$`,
`$1$`, `$5$`, `$6$`) need the packages of the extra `basicauth`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelwp_agent.extensions.basicauth import Verify

_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_CRYPT = re.compile(r"\$(apr1|1|5|6)\$(?:rounds=(\d{1,9})\$)?[./A-Za-z0-9]{0,16}\$[./A-Za-z0-9]+")
_NAMES = {"apr1": "apr_md5_crypt", "1": "md5_crypt", "5": "sha256_crypt", "6": "sha512_crypt"}
_SHA1_SIZE = 20
_QUICK_BCRYPT = 6
"""Largest cost of bcrypt whose check takes a few milliseconds; `htpasswd -B` uses 5."""
_QUICK_ROUNDS = 10_000
"""The same for the formats of crypt, which use 1000 or 5000 rounds."""
_MAX_BCRYPT = 72
"""Bytes of a password that bcrypt uses."""


class StoredPassword:
    """A password of one user, plain or hashed."""

    __slots__ = ("_verify", "immediate", "quick")

    def __init__(self, text: str) -> None:
        """Read a stored password; raise `ValueError` that says what is wrong, without quoting it."""
        self.quick = True
        """Whether a check takes at most a few milliseconds."""
        self.immediate = False
        """Whether a check takes only microseconds."""
        if text.startswith(("{SHA}", "{SSHA}")):
            self._verify = _sha1(text)
            self.immediate = True
        elif text.startswith(("$", "{")):
            self._verify = self._hashed(text)
        else:
            if not text:
                raise ValueError("the password is empty")
            plain = text.encode()
            self._verify = lambda password: hmac.compare_digest(password, plain)
            self.immediate = True

    def verify(self, password: bytes) -> bool:
        """Return whether `password` is the stored one. It may be called in a thread."""
        return self._verify(password)

    def _hashed(self, text: str) -> Verify:
        if found := _BCRYPT.fullmatch(text):
            self.quick = int(found[1]) <= _QUICK_BCRYPT
            return _bcrypt(text.encode())
        if found := _CRYPT.fullmatch(text):
            self.quick = int(found[2] or 0) <= _QUICK_ROUNDS
            return _crypt(_NAMES[found[1]], text)
        raise ValueError("the hash is of no supported kind: use bcrypt (`htpasswd -B`)")


def read_htpasswd(text: str) -> Mapping[str, StoredPassword]:
    """Return the passwords by user of an htpasswd file; raise `ValueError` that names the line, not its content."""
    found: dict[str, StoredPassword] = {}
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        user, colon, stored = entry.partition(":")
        try:
            if not colon or not user:
                raise ValueError("write `user:password`")  # noqa: TRY301 - reported with its line below
            if user in found:
                raise ValueError("the user is given twice")  # noqa: TRY301
            found[user] = StoredPassword(stored)
        except ValueError as error:
            message = f"line {number}: {error}"
            raise ValueError(message) from None
    if not found:
        raise ValueError("there is no user: write a line `user:password`")
    return found


def _sha1(text: str) -> Verify:
    try:
        raw = base64.b64decode(text.partition("}")[2], validate=True)
    except binascii.Error:
        raw = b""
    digest, salt = raw[:_SHA1_SIZE], raw[_SHA1_SIZE:]
    if len(digest) < _SHA1_SIZE or bool(salt) is text.startswith("{SHA}"):
        raise ValueError("the hash is incomplete")
    return lambda password: hmac.compare_digest(hashlib.sha1(password + salt).digest(), digest)  # noqa: S324 - htpasswd's


def _bcrypt(stored: bytes) -> Verify:
    try:
        import bcrypt  # noqa: PLC0415 - an optional package
    except ImportError:
        raise ValueError(_MISSING) from None
    return lambda password: b"\0" not in password and bcrypt.checkpw(password[:_MAX_BCRYPT], stored)


def _crypt(name: str, stored: str) -> Verify:
    try:
        handler = getattr(import_module("passlib.hash"), name)  # an optional package
    except ImportError:
        raise ValueError(_MISSING) from None
    try:
        handler.from_string(stored)
    except ValueError:
        raise ValueError("the hash is incomplete") from None
    return lambda password: b"\0" not in password and bool(handler.verify(password, stored))


_MISSING = "this kind of hash needs more packages: install `otelwp-agent[basicauth]`"
