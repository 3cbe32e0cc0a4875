"""An entitlement never changes."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from otelwp_agent.licensing.entitlement import Basis, Entitlement
from otelwp_agent.tier import Tier


def test_an_entitlement_and_its_limits_cannot_be_changed() -> None:
    entitlement = Entitlement(Tier.PRO, Basis.LICENSE)
    with pytest.raises(FrozenInstanceError):
        entitlement.tier = Tier.ENTERPRISE  # type: ignore[misc]
    with pytest.raises(TypeError):
        entitlement.limits["sites"] = 2.0  # type: ignore[index]
