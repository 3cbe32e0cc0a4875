"""The options with the terms of a licence. The tests of `license` and `licenses` use them all."""

import click
import pytest

from otelwp_agent.cli.license_options import load_signing_key, parse_day
from otelwp_agent.errors import AgentError
from otelwp_agent.licensing.signatures import private_pem
from tests.licensing.issuer import ISSUER


def test_a_day_is_a_date_without_a_time():
    assert str(parse_day(None, None, "2027-12-31")) == "2027-12-31"
    for wrong in ("", "2027", "2027-12-31T00:00", "31.12.2027", "2027-02-30"):
        with pytest.raises(click.BadParameter, match="is not a day"):
            parse_day(None, None, wrong)


def test_a_signing_key_is_read_from_its_file(tmp_path):
    path = tmp_path / "key.pem"
    path.write_bytes(private_pem(ISSUER.private))
    assert load_signing_key(path).private_bytes_raw() == ISSUER.private.private_bytes_raw()
    path.write_bytes(b"x" * 100_000)
    with pytest.raises(AgentError, match="Ed25519"):
        load_signing_key(path)
