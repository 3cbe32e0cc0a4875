"""Formats of the OpenAPI document that schemathesis does not have, loaded by it with `SCHEMATHESIS_HOOKS`.

Requests about the operator whose token schemathesis uses are changed: without that token it could test nothing more.
"""

import schemathesis
from hypothesis import strategies as st

PRINTABLE = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=40)
OWN = "root"

schemathesis.openapi.format("printable", PRINTABLE)


@schemathesis.hook
def before_call(context, case, kwargs):
    """Name another operator."""
    if (case.path_parameters or {}).get("operator") == OWN:
        case.path_parameters["operator"] = "0"
