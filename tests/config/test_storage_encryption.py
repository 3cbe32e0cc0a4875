import pytest
from pydantic import ValidationError

from otelwp_agent.config.service import JournalConfig, ServiceConfig
from otelwp_agent.config.storage_encryption import StorageEncryption

KEY = "A" * 43 + "="
RECIPIENTS = {"keys": [{"key_id": "owner", "public_key": "A" * 43}]}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "no key to write with: give `key_file`, `key` or `recipients`"),
        ({"key": KEY, "key_file": "/run/key"}, "give `key` or `key_file`, not both"),
        ({"opening_keys_file": "/run/keys"}, "no key to write with"),
        (
            {"recipients": {"url": "https://collector.example/key-set.jws", "public_keys": ["x"]}},
            r"recipients\.url: files are encrypted from the start on",
        ),
    ],
)
def test_settings_without_a_usable_key_are_refused(settings, why):
    with pytest.raises(ValidationError, match=why):
        StorageEncryption(**settings)


def test_recipients_alone_are_refused_for_the_journal_with_the_reason():
    with pytest.raises(
        ValidationError, match="`recipients` alone cannot be used here, because the agent must read the"
    ):
        JournalConfig(directory="/j", encryption={"recipients": RECIPIENTS})
    for more in ({"key": KEY}, {"key_file": "/run/key"}, {"opening_keys_file": "/run/keys"}):
        JournalConfig(directory="/j", encryption={"recipients": RECIPIENTS, **more})


@pytest.mark.parametrize("setting", ["key_file", "opening_keys_file", "previous_key_files"])
def test_a_key_in_the_directory_that_it_encrypts_is_refused(setting):
    path = "/var/lib/journal/../journal/key"
    given = {setting: [path] if setting == "previous_key_files" else path}
    with pytest.raises(ValidationError, match="is in /var/lib/journal, which it encrypts: who has the disk"):
        JournalConfig(directory="/var/lib/journal", encryption={"recipients": RECIPIENTS, "key": KEY, **given}) if (
            setting != "key_file"
        ) else JournalConfig(directory="/var/lib/journal", encryption=given)
    JournalConfig(directory="/var/lib/journal", encryption={"key_file": "/var/lib/journal.key"})


def test_dead_letters_are_encrypted_as_the_journal_unless_they_have_settings_of_their_own():
    journal = {"directory": "/j", "encryption": {"key": KEY}}
    service = ServiceConfig(journal=journal)
    assert service.dead_letter_encryption == service.journal.encryption
    own = ServiceConfig(journal=journal, dead_letter={"encryption": {"recipients": RECIPIENTS}})
    assert own.dead_letter_encryption.recipients.keys[0].key_id == "owner"
    assert ServiceConfig(journal={"directory": "/j"}).dead_letter_encryption is None
    assert ServiceConfig().dead_letter_encryption is None


def test_the_key_is_not_shown():
    assert KEY not in repr(StorageEncryption(key=KEY))
