"""The contract suite (`otelwp_agent.testing`) over every component that ships, and the habits of this repository.

A component joins by being named in `components.SHIPPED`.
"""

from __future__ import annotations

import ast
import atexit
import shutil
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import pytest

from otelwp_agent.component import Kind
from otelwp_agent.components import ALIASES, SHIPPED, Catalog
from otelwp_agent.licensing.public_keys import encode_base64url
from otelwp_agent.licensing.signatures import generate_key, private_pem
from otelwp_agent.sealing.content import decode
from otelwp_agent.sealing.envelope import parse, unseal
from otelwp_agent.sealing.key_ring import KeyRing, OpeningKey
from otelwp_agent.sealing.suites import SealingSuite
from otelwp_agent.testing import ComponentContract

ALL = [(kind, type_) for kind in Kind for type_ in SHIPPED[kind]]

FOLDER = tempfile.mkdtemp()
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
SIGNING_KEY = f"{FOLDER}/signing.pem"
Path(SIGNING_KEY).write_bytes(private_pem(generate_key()))

SETTINGS = {
    # The test process itself is larger than a limit that one would set.
    (Kind.PROCESSOR, "memory_limiter"): {"limit_mib": 1_000_000, "spike_limit_mib": 1},
    # The test process does not listen on the default port.
    (Kind.EXTENSION, "admin_api"): {"endpoint": "127.0.0.1:0"},
    (Kind.EXTENSION, "opamp_server"): {"endpoint": "127.0.0.1:0"},
    # The example's file does not exist.
    (Kind.EXTENSION, "license_server"): {"endpoint": "127.0.0.1:0", "signing_key_file": SIGNING_KEY},
    # The store is created by the extension, in a folder of its own.
    (Kind.EXTENSION, "control_store"): {"url": f"sqlite:///{FOLDER}/control.db", "create": True, "pepper_file": ""},
    # The file is created by the extension, in a folder of its own.
    (Kind.EXTENSION, "delivery_statements"): {"file": f"{FOLDER}/statements.db", "key_file": SIGNING_KEY},
    # The corpus is smaller than a budget that one would set.
    (Kind.PROCESSOR, "adaptive_sampling"): {"target": {"spans_per_second": 0.01}},
    # Nothing listens on this port (9 is `discard`), so that no test needs the network.
    (Kind.EXTENSION, "oauth2client"): {"token_url": "http://127.0.0.1:9/token"},
}
PRIVATE = bytes(range(32))
"""The private key of the test's recipient."""
PUBLIC = encode_base64url(SealingSuite.X25519.public_bytes(PRIVATE))
SETTINGS[Kind.PROCESSOR, "encryption"] = {"recipients": {"keys": [{"key_id": "key", "public_key": PUBLIC}]}}


def unsealed(_, batch):
    """Return the plain body of a sealed batch."""
    envelope = parse(batch.body)
    content = unseal(envelope, KeyRing([OpeningKey("key", SealingSuite.X25519, PRIVATE)]), time.time())
    return decode(envelope.header, content, sys.maxsize)


OPENS = {(Kind.PROCESSOR, "encryption"): {"open_body": unsealed}}
WITHOUT = {
    (Kind.PROCESSOR, "adaptive_sampling"): {
        "every_entry_of_the_example_matters": "`per` divides a budget among keys, which no small corpus shows",
    },
}


def factory_of(kind, type_):
    factory = Catalog().get(kind, type_)
    assert factory is not None
    return factory


def test_class(kind, type_):
    """Return the class that pytest collects for one component."""
    key = (kind, type_)
    return type(
        f"Test_{kind.label}_{type_}",
        (ComponentContract,),
        {
            "__module__": __name__,
            "factory": factory_of(kind, type_),
            "settings": SETTINGS.get(key, {}),
            "without": WITHOUT.get(key, {}),
            **OPENS.get(key, {}),
        },
    )


test_class.__test__ = False
globals().update({each.__name__: each for each in (test_class(kind, type_) for kind, type_ in ALL)})

every_component = pytest.mark.parametrize(("kind", "type_"), ALL, ids=[f"{kind.label}-{type_}" for kind, type_ in ALL])


@every_component
def test_the_factory_is_named_as_its_file(kind, type_):
    factory = factory_of(kind, type_)
    assert (factory.kind, factory.type) == (kind, type_)
    assert set(factory.aliases) == {alias for alias, of in ALIASES.get(kind, {}).items() if of == type_}


@every_component
def test_the_file_has_its_parts_in_order(kind, type_):
    """Docstring, imports, constants, Config, the class, private helpers, FACTORY."""
    module = import_module(f"otelwp_agent.{kind.value}.{type_}")
    tree = ast.parse(Path(module.__file__).read_text("utf-8"))
    names = [
        node.name if isinstance(node, ast.ClassDef) else ast.unparse(node.targets[0])
        for node in tree.body
        if isinstance(node, (ast.ClassDef, ast.Assign))
    ]
    assert ast.get_docstring(tree)
    assert "Config" in names
    assert names[-1] == "FACTORY"
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert classes[-1:] != ["Config"], "the component's class comes after its Config"
    assert factory_of(kind, type_).config.__name__ == "Config"


@every_component
def test_instruments_have_a_prefix(kind, type_):
    for instrument in factory_of(kind, type_).instruments:
        # The metrics of plugins have the names that operators' dashboards use.
        assert instrument.name.startswith(("otelcol_", "otelwp_", "plugin_")), instrument.name
