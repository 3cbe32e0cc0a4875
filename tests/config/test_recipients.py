import pytest
from pydantic import ValidationError

from otelwp_agent.config.recipients import RecipientsConfig


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "give one of them"),
        ({"url": "https://x.example", "file": "/x", "public_keys": ["k"]}, "give one of them"),
        ({"url": "https://x.example"}, "`public_keys` is missing"),
        ({"file": "/x"}, "`public_keys` is missing"),
        ({"url": "http://x.example", "public_keys": ["k"]}, "use https"),
        ({"keys": [{"key_id": "a", "public_key": "short"}]}, "43 characters in base64url"),
        ({"keys": [{"key_id": "a", "public_key": "A" * 43, "suite": "MLKEM768_X25519"}]}, "1622 characters"),
        ({"keys": [{"key_id": "a", "public_key": "A" * 43}] * 2}, "same `key_id`"),
        ({"keys": [{"key_id": "a", "public_key": "A" * 43}], "public_keys": ["k"]}, "has no effect"),
        ({"file": "/x", "public_keys": ["k"], "state_file": "/y"}, "`state_file` has no effect"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, problem):
    with pytest.raises(ValidationError, match=problem):
        RecipientsConfig.model_validate(settings)
