"""Remove personal data and secrets from values of JSON: card and account numbers, e-mail addresses, passwords, keys.

Replaced are values of members whose names say that they are personal or secret, and what is recognized by its form in
any text. Every pattern takes linear time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from otelwp_agent.telemetry import credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

EMAIL = re.compile(r"[\w.+%-]{1,64}+@(?:[\w-]++\.)++[a-zA-Z]{2,}")
"""An e-mail address in a text. Search only in texts with `@`."""

_NAME = re.compile(
    r"pass(?!ed)|pwd|token|nonce|secret|api_?key|auth(?!or)|cookie|session|mail|phone|iban|cvv|cvc|(?:^|[_-])pan$"
    r"|card_?(?:no|num|number|holder|exp|expiry|data)|^card$|ssn|birth|address|(?:^|[_-])ip$|remote_addr"
    r"|(?:first|last|full|display|nick|user|customer|billing|shipping|holder|merchant)_?name",
    re.IGNORECASE,
)
"""Names of members with personal data or secrets."""
_CARD = re.compile(r"(?<![\d.-])[2-6](?:[ -]?\d){12,18}(?![\d.])")
"""A card number, perhaps in groups. Those of all schemes begin with 2 to 6; times in milliseconds begin with 1."""
_CARD_DIGITS = 13
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_IBAN_CHECK = 97
_API_KEY = re.compile(r"wpo_(?:live|op)_[a-z2-7]{16}_[0-9a-z]{8,40}")
_TEN = 10


def redact_value(value: Any) -> Any:  # noqa: ANN401 - a value of JSON
    """Return a value of JSON without personal data and secrets."""
    if isinstance(value, str):
        return redact_sensitive(value)
    if isinstance(value, dict):
        return redact_members(value)
    if isinstance(value, list):
        return [redact_value(each) for each in value]
    if isinstance(value, int) and not isinstance(value, bool):
        text = str(value)
        return "[card]" if _CARD.fullmatch(text) and _is_card(text) else value
    return value


def redact_members(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object without personal data and secrets, in names and values."""
    return {
        redact_sensitive(name): credentials.MARK
        if value not in (None, "", True, False) and _NAME.search(name)
        else redact_value(value)
        for name, value in members.items()
    }


def redact_sensitive(text: str) -> str:
    """Return a text without card and account numbers, e-mail addresses, passwords, keys and tokens."""
    if "wpo_" in text:
        text = _API_KEY.sub(credentials.MARK, text)
    text = credentials.redact(text)
    if "@" in text:
        text = EMAIL.sub(lambda found: found[0] if found[0].startswith(f"{credentials.MARK}@") else "[email]", text)
    if len(text) >= _CARD_DIGITS:
        text = _CARD.sub(lambda found: "[card]" if _is_card(found[0]) else found[0], text)
        text = _IBAN.sub(lambda found: "[iban]" if _is_iban(found[0]) else found[0], text)
    return text


def _is_card(text: str) -> bool:
    """Return whether the check digit of a card number is right (Luhn, ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed([int(char) for char in text if char.isdecimal()])):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled >= _TEN else doubled
    return total % _TEN == 0


def _is_iban(text: str) -> bool:
    """Return whether the check digits of an account number (IBAN, ISO 13616) are correct."""
    packed = text.replace(" ", "")
    moved = packed[4:] + packed[:4]
    return int("".join(str(int(char, 36)) for char in moved)) % _IBAN_CHECK == 1
