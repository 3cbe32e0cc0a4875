import base64
import hashlib
import subprocess
import sys

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.extensions.basicauth.passwords import StoredPassword, read_htpasswd


def openssl(kind, password, salt="saltsalt"):
    command = ["openssl", "passwd", f"-{kind}", "-salt", salt, password]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("kind", ["apr1", "1", "5", "6"])
def test_hashes_of_openssl_are_checked(kind):
    stored = StoredPassword(openssl(kind, "s3cret \u00e4"))
    assert stored.verify("s3cret \u00e4".encode())
    assert not stored.verify(b"s3cret")
    assert not stored.verify(b"")
    assert not stored.verify(b"s3cret \x00")
    assert (stored.quick, stored.immediate) == (True, False)


@pytest.mark.parametrize(("cost", "quick"), [(4, True), (7, False)])
def test_bcrypt_is_checked_and_an_expensive_one_is_not_quick(cost, quick):
    hashed = bcrypt.hashpw(b"s3cret", bcrypt.gensalt(cost)).decode()
    for text in (hashed, hashed.replace("$2b$", "$2y$")):
        stored = StoredPassword(text)
        assert stored.verify(b"s3cret")
        assert not stored.verify(b"s3cre")
        assert not stored.verify(b"s3cret\x00")
        assert not stored.verify(b"x" * 1000)
        assert stored.quick is quick


def test_plain_and_sha_passwords_are_checked_at_once():
    stored = StoredPassword("s3cret")
    assert (stored.immediate, stored.verify(b"s3cret"), stored.verify(b"S3cret")) == (True, True, False)
    plain = base64.b64encode(hashlib.sha1(b"s3cret").digest()).decode()
    salted = base64.b64encode(hashlib.sha1(b"s3cretsalt").digest() + b"salt").decode()
    assert StoredPassword("{SHA}" + plain).verify(b"s3cret")
    assert StoredPassword("{SHA}" + plain).immediate
    assert StoredPassword("{SSHA}" + salted).verify(b"s3cret")
    assert not StoredPassword("{SSHA}" + salted).verify(b"s3cretsalt")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the password is empty"),
        ("{SHA}", "the hash is incomplete"),
        ("{SHA}%%%", "the hash is incomplete"),
        ("{SSHA}6J1ctXW+cC1nigT4JmnnuVZ+7jM=", "the hash is incomplete"),
        ("{MD5}abc", "of no supported kind"),
        ("$2y$05$short", "of no supported kind"),
        ("$9$x$y", "of no supported kind"),
        ("$apr1$salt$tooshort", "the hash is incomplete"),
        ("$6$rounds=9999999999$salt$x", "of no supported kind"),
    ],
)
def test_an_invalid_hash_is_refused_without_quoting_it(text, words):
    with pytest.raises(ValueError, match=words) as caught:
        StoredPassword(text)
    assert not text or text not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_a_password_or_refused(text):
    try:
        stored = StoredPassword(text)
    except ValueError:
        return
    assert stored.verify(text.encode("utf-8", "surrogatepass")) or text.startswith("{")


def test_a_file_is_read_with_comments_and_blank_lines():
    users = read_htpasswd("# shops\n\nann:a:b\n bob:c \r\n")
    assert [*users] == ["ann", "bob"]
    assert users["ann"].verify(b"a:b")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there is no user"),
        ("# none\n", "there is no user"),
        ("ann\n", "line 1: write `user:password`"),
        (":x\n", "line 1: write `user:password`"),
        ("ann:x\nann:y", "line 2: the user is given twice"),
        ("ann:x\n\nbob:", "line 3: the password is empty"),
        ("ann:$9$s3cret$", "line 1: the hash is of no supported kind"),
    ],
)
def test_an_invalid_file_is_refused_with_its_line_only(text, words):
    with pytest.raises(ValueError, match=words) as caught:
        read_htpasswd(text)
    assert "s3cret" not in str(caught.value)


def test_without_the_extra_the_package_to_install_is_named():
    code = (
        "import sys; sys.modules['bcrypt'] = sys.modules['passlib'] = sys.modules['passlib.hash'] = None\n"
        "from otelwp_agent.extensions.basicauth.passwords import StoredPassword\n"
        "for text in ('$2y$05$' + 53 * 'a', '$apr1$salt$abc'):\n"
        "    try: StoredPassword(text)\n"
        "    except ValueError as error: print(error)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert found.count("install `otelwp-agent[basicauth]`") == 2
