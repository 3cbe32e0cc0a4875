"""Public keys that data keys are encrypted for, and private keys that open them: those of sealed envelopes."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otelwp_agent.at_rest.errors import SealedDataError
from otelwp_agent.at_rest.keys import LABEL
from otelwp_agent.sealing.suites import NotDecryptedError

if TYPE_CHECKING:
    from otelwp_agent.sealing.key_ring import OpeningKey
    from otelwp_agent.sealing.recipient import Recipient


@dataclass(frozen=True, slots=True)
class RecipientKey:
    """A public key that data keys are encrypted for."""

    recipient: Recipient

    @property
    def key_id(self) -> str:
        """Its id."""
        return self.recipient.key_id

    def wrap(self, data_key: bytes, binding: bytes) -> dict[str, Any]:
        """Return the slot with `data_key`."""
        suite = self.recipient.suite
        sealed = suite.encrypt(self.recipient.loaded, data_key, LABEL + binding)
        return {
            "kind": "hpke",
            "suite": suite.value,
            "key": self.key_id,
            "data": base64.b64encode(sealed).decode(),
        }


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key that opens data keys. It opens them after its end, too: files are older than messages."""

    opening: OpeningKey

    @property
    def key_id(self) -> str:
        """Its id."""
        return self.opening.key_id

    def unwrap(self, slot: dict[str, Any], binding: bytes) -> bytes | None:
        """Return the data key in a slot; `None` if the slot is for another key. Raise `SealedDataError` if altered."""
        opening = self.opening
        wanted = ("hpke", opening.suite.value, opening.key_id)
        if (slot.get("kind"), slot.get("suite"), slot.get("key")) != wanted:
            return None
        try:
            return opening.suite.decrypt(opening.loaded, base64.b64decode(slot["data"]), LABEL + binding)
        except NotDecryptedError as error:
            raise SealedDataError("its data key was changed, or is for another key with the same id") from error
