import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.telemetry.personal_data import redact_members, redact_sensitive, redact_value

CARD = "4111 1111 1111 1111"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f"card {CARD} declined", "card [card] declined"),
        ("card 4111-1111-1111-1111.", "card 4111-1111-1111-1111."),
        ("pan=378282246310005,", "pan=[card],"),
        ("order 4111111111111112", "order 4111111111111112"),
        ("at 1795186135546 and 4.111111111111111", "at 1795186135546 and 4.111111111111111"),
        ("pay to DE89 3704 0044 0532 0130 00 now", "pay to [iban] now"),
        ("pay to DE88 3704 0044 0532 0130 00 now", "pay to DE88 3704 0044 0532 0130 00 now"),
        ("from ann@shop.example: hello", "from [email]: hello"),
        ("mysql://root:pw123456@db/x", "mysql://REDACTED@db/x"),
        ("Authorization: Bearer abcdefgh12345678", "Authorization: REDACTED"),
        ("key wpo_live_aaaaaaaaaaaaaaaa_bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb0123abcd!", "key REDACTED!"),
        ("Insufficient funds", "Insufficient funds"),
    ],
)
def test_texts(text, wanted):
    assert redact_sensitive(text) == wanted


def test_members_are_recognized_by_name_and_by_value():
    given_ = {
        "order_id": "12345",
        "amount": 55000,
        "currency": "XOF",
        "error_code": "card_declined",
        "customer_name": "Ann",
        "card": {"number": 4111111111111111},
        "payment": {"ref": 4111111111111111, "list": ["a@b.example", None, True, 1.5]},
        "phone": None,
        "ann@shop.example": 1,
    }
    assert redact_members(given_) == {
        "order_id": "12345",
        "amount": 55000,
        "currency": "XOF",
        "error_code": "card_declined",
        "customer_name": "REDACTED",
        "card": "REDACTED",
        "payment": {"ref": "[card]", "list": ["[email]", None, True, 1.5]},
        "phone": None,
        "[email]": 1,
    }


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    )
)
def test_redaction_is_idempotent(value):
    once = redact_value(value)
    assert redact_value(once) == once
