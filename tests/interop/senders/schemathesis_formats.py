"""Formats of the OpenAPI document that schemathesis does not have, loaded by it with `SCHEMATHESIS_HOOKS`."""

import schemathesis
from hypothesis import strategies as st

PRINTABLE = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=40)

schemathesis.openapi.format("printable", PRINTABLE)
