"""`encryption` of files: the keys that a file is encrypted for, and those that read it."""

from __future__ import annotations

import os

from pydantic import Field, model_validator

from otelwp_agent.config.blocks import Block
from otelwp_agent.config.recipients import RecipientsConfig  # noqa: TC001 - a field's annotation
from otelwp_agent.config.types import Secret  # noqa: TC001 - a field's annotation


class StorageEncryption(Block):
    """Encryption of files with AES-256-GCM. Each file has a key of its own, encrypted with the keys of this section.

    Keep the keys away from the disk that the files are on: in a secret store, or in memory (`/run`).
    """

    key_file: str | None = Field(None, min_length=1)
    """File with a secret key: 32 random bytes in base64 or hexadecimal, as `otelwp-agent journal new-key` writes it."""
    key: Secret | None = None
    """The secret key itself, for example `${env:OTELWP_JOURNAL_KEY}`, instead of `key_file`."""
    previous_key_files: list[str] = Field(default_factory=list, max_length=16)
    """Files with keys that were used before. They read what is still encrypted for them."""
    recipients: RecipientsConfig | None = None
    """Public keys to encrypt for, as in the processor `encryption`, instead of a secret key or in addition to it. The
    owner of the private key can read the files."""
    opening_keys_file: str | None = Field(None, min_length=1)
    """File with the private keys of `recipients` (`opening-keys.json`), with which this agent reads the files."""

    @model_validator(mode="after")
    def _has_a_key(self) -> StorageEncryption:
        message = ""
        if self.key is not None and self.key_file is not None:
            message = "give `key` or `key_file`, not both"
        elif not (self.has_secret or self.recipients):
            message = "there is no key to write with: give `key_file`, `key` or `recipients`"
        elif self.recipients is not None and self.recipients.url is not None:
            message = (
                "recipients.url: files are encrypted from the start on, before anything can be fetched: give "
                "`recipients.file` or `recipients.keys`"
            )
        if message:
            raise ValueError(message)
        return self

    @property
    def has_secret(self) -> bool:
        """Whether a secret key encrypts."""
        return self.key is not None or self.key_file is not None

    def check_readable(self, why: str) -> None:
        """Raise `ValueError` with the reason `why` if the agent could not read what it writes."""
        if not self.has_secret and self.opening_keys_file is None:
            message = (
                f"encryption: `recipients` alone cannot be used here, because {why}: give `key_file` or `key` too, or "
                "`opening_keys_file` with the private keys"
            )
            raise ValueError(message)

    def check_apart(self, directory: str) -> None:
        """Raise `ValueError` if a key file is in the directory that it encrypts."""
        inside = os.path.join(os.path.abspath(directory), "")  # noqa: PTH100, PTH118 - not resolved
        for path in (self.key_file, self.opening_keys_file, *self.previous_key_files):
            if path is not None and os.path.abspath(path).startswith(inside):  # noqa: PTH100 - the same
                message = (
                    f"encryption: {path} is in {directory}, which it encrypts: who has the disk would have the key. "
                    "Put it on another disk or in memory, such as /run"
                )
                raise ValueError(message)
