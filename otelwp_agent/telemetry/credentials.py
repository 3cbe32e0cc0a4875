"""Replace passwords, keys and tokens in any text.

The WordPress plugin recognizes the same patterns (`examples/wordpress/otelwp/includes/class-secrets.php`), and
`tests/data/wordpress/secrets.json` tests both. Every pattern takes linear time: its quantifiers are bounded,
possessive, or end at a character that cannot be repeated before them.
"""

from __future__ import annotations

import re

MARK = "REDACTED"
"""Replacement of a secret, as in OpenTelemetry's conventions (`url.full`)."""

_SEPARATOR = (
    r"""["'\]\\]{0,4}[ \t]{0,3}"""
    r"""(?:={1,3}>?|:|%3D|;s:\d{1,6}:|[ \t](?:like|in|is|by)[ \t]{0,2}\(?[ \t]{0,2}(?=["']))"""
    r"""[ \t]{0,3}(?:string\(\d{1,6}\) )?"""
)
"""The rest of a quoted key, a separator, spaces."""
_QUOTED = r"""(")(?:[^"\\]++|\\.)*+|(')(?:[^'\\]++|\\.)*+|(\\{1,4}["'])[^"'\\]*+"""
"""A quoted value up to its closing quote. The opening quote is group 2, 3 or 4."""
_BARE = r"""(?!\?(?:[\s,;)]|$))[^\s&;,"'<>()\[\]{}|\\]++"""
"""A value without quotes; a placeholder of SQL is not one."""
_STRONG = (
    r"passw(?:or)?d|passphrase|passcode|(?<![a-z])(?:pwd|(?:db|user|smtp|ftp|my|mysql|root|admin)_?pass|identified)"
    r"|_pass|secret|(?:api|access|private|secret|encryption|signing|account|shared|auth)[ _-]?key|[_-]salt"
    r"|(?:php)?sess(?:ion)?_?id|wpnonce|authorization"
)
_WEAK = r"(?<![a-z])(?:pass|auth|session|sig|nonce|signature)|token|credentials?"
_IGNORE = re.IGNORECASE | re.DOTALL | re.ASCII

_KEY_BLOCK = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?:[^-]++|-(?!----END ))*+(?:-----END [A-Z ]{0,30}-----)?"
)
_HEADER = re.compile(
    rf"""((?:authorization|(?<![a-z])cookie)["'\\]{{0,3}}[ \t]{{0,3}}(?::|=>)[ \t]{{0,3}})"""
    rf"""(?:{_QUOTED}|(?:Digest|OAuth|Signature|AWS4-HMAC-SHA256)\b[^\r\n]*+|[^\r\n"'\\]++)""",
    _IGNORE,
)
_TOKEN = re.compile(
    r"(?:(?<![A-Za-z0-9])|(?<=%[0-9A-Fa-f]{2}))(?:"
    r"[prs]k_(?:live|test)_[A-Za-z0-9]{8,}+|whsec_[A-Za-z0-9+/=]{16,}+|gh[opsur]_[A-Za-z0-9]{20,}+"
    r"|github_pat_\w{20,}+|glpat-[\w-]{16,}+|xox[abeoprs]-[A-Za-z0-9-]{10,}+|xapp-\d-[A-Za-z0-9-]{10,}+"
    r"|A(?:KIA|SIA)[A-Z0-9]{16}(?![A-Za-z0-9])|AIza[\w-]{35}|ya29\.[\w-]{16,}+|SG\.[\w-]{16,}+\.[\w-]{16,}+"
    r"|(?<![\w-])eyJ[\w-]{8,}+\.[\w-]{8,}+(?:\.[\w-]*+){0,3})",
    re.ASCII,
)
_SCHEME = re.compile(
    r"(?<![a-z])(bearer|basic)([ \t]{1,3}|%20|\+)(?=[a-z_.~+/-]{0,64}+[\d=]|[\w.~+/-]{20})[\w.~+/-]{8,}+={0,2}", _IGNORE
)
_STRONG_PAIR = re.compile(rf"((?:{_STRONG})\d{{0,2}}(?![a-z]){_SEPARATOR})(?:{_QUOTED}|{_BARE})", _IGNORE)
_WEAK_PAIR = re.compile(
    rf"((?:{_WEAK})\d{{0,2}}(?![a-z]){_SEPARATOR})(?:{_QUOTED}|"
    r"(?:(?<=[=>d])|(?<=[=>d][ \t])|(?=[\w.~+/-]{16})|(?=[\w.~+/-]{8})(?=[a-z_.~+/-]{0,64}+\d))"
    rf"{_BARE})",
    _IGNORE,
)
_BESIDE = re.compile(
    r"((?:(?<![a-z])key|secret|token|password|nonce|signature)s?[^\w\r\n]{1,4}(?:[a-z]{1,8}[^\w\r\n]{1,3}){0,2})"
    r"(?=[a-z+/]{0,64}+\d)[a-z0-9+/]{32,}+={0,2}",
    _IGNORE,
)
_USER = re.compile(r"(?<=://)[^/@\s?#]++@")

_NAMES: tuple[str, ...] = (
    "pass",
    "pwd",
    "secret",
    "token",
    "key",
    "auth",
    "nonce",
    "sess",
    "sig",
    "credential",
    "cookie",
    "salt",
)
_NAMES += ("identified", "bearer", "basic")
"""Each text that matches a pattern with a name contains one of these, in lower case. Most texts contain none."""
_PREFIXES: tuple[str, ...] = (
    "k_live_",
    "k_test_",
    "whsec_",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "xox",
)
_PREFIXES += ("xapp-", "AKIA", "ASIA", "AIza", "ya29.", "SG.", "eyJ")
"""Each match of `_TOKEN` contains one of these."""
_SHORTEST_TOKEN = 16
_SHORTEST_PAIR = 6


def redact(text: str) -> str:
    """Replace the secrets in `text`."""
    size = len(text)
    if size < _SHORTEST_PAIR:
        return text
    if size >= _SHORTEST_TOKEN:
        for prefix in _PREFIXES:
            if prefix in text:
                text = _TOKEN.sub(MARK, text)
                break
        if "@" in text:
            text = _USER.sub(f"{MARK}@", text)
    lowered = text.lower()
    for name in _NAMES:
        if name in lowered:
            return _beside_names(text)
    return text


def _beside_names(text: str) -> str:
    """Replace secrets that can be recognized only by a name next to them."""
    text = _KEY_BLOCK.sub(MARK, text)
    text = _HEADER.sub(rf"\1\2\3\4{MARK}", text)
    text = _SCHEME.sub(rf"\1\2{MARK}", text)
    text = _STRONG_PAIR.sub(rf"\1\2\3\4{MARK}", text)
    text = _WEAK_PAIR.sub(rf"\1\2\3\4{MARK}", text)
    return _BESIDE.sub(rf"\1{MARK}", text)
