"""Read what a configuration permits without asking the licence server, for commands that do not run the agent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from otelwp_agent.licensing.decision import lapsed, newest, with_license, without_license
from otelwp_agent.licensing.public_keys import load_keys
from otelwp_agent.licensing.signatures import MAX_LICENSE, verify_license
from otelwp_agent.licensing.state_file import LicenseStateFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelwp_agent.config.license import LicenseConfig
    from otelwp_agent.config.service import ServiceConfig
    from otelwp_agent.licensing.entitlement import Entitlement
    from otelwp_agent.licensing.license import License


def permitted(service: ServiceConfig, now: float, *, required: bool) -> Entitlement:
    """Return what the agent may use at the time `now`, from the licence, its stored renewal and `service.tier`.

    `required` is the result of `license_required()`.
    """
    settings = service.license
    if settings is None:
        return without_license(service.stated_tier, required=required)
    try:
        keys = load_keys(settings.public_keys, required=required)
        terms = verify_license(_text(settings), keys)
        return with_license(_renewed(terms, service.license_state_path, keys), now, settings.grace)
    except OSError as error:
        return lapsed(f"the licence cannot be used: {error.filename}: {error.strerror}")
    except ValueError as error:
        return lapsed(f"the licence cannot be used: {error}")


def _text(settings: LicenseConfig) -> str:
    if settings.key is not None:
        return settings.key.get_secret_value()
    with Path(settings.file or "").open(encoding="utf-8") as stream:
        return stream.read(MAX_LICENSE + 1)


def _renewed(terms: License, state_path: str | None, keys: Mapping[str, str]) -> License:
    """Return the last renewal of a licence, if the state file has one that is newer."""
    try:
        text = LicenseStateFile(state_path).read().license
        return newest(terms, verify_license(text, keys) if text else None)
    except ValueError:
        return terms
