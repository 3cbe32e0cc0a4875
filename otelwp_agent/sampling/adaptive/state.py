"""Save and restore a controller's measurements as plain data, so that they survive a restart.

Times are stored as ages in seconds, because another process has another clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otelwp_agent.sampling.adaptive.estimates import Tally
from otelwp_agent.sampling.adaptive.histogram import LogHistogram
from otelwp_agent.sampling.adaptive.keys import KeyState
from otelwp_agent.sampling.adaptive.sites import SiteState

if TYPE_CHECKING:
    from otelwp_agent.sampling.adaptive.controller import Controller

VERSION = 1
_RATES = (
    "traffic",
    "weight_rate",
    "adjusted_rate",
    "measured",
    "seen",
    "weight",
    "adjusted",
    "arrived",
    "firsts",
)
_SITE_NUMBERS = ("seen", "count", "seconds", "traffic")


def state_of(controller: Controller, now: float) -> dict[str, Any]:
    """Return the controller's measurements as JSON-compatible data."""
    guard = controller.guard
    if guard is not None:
        guard.advance(now)
    budget = controller.policy.budget
    keys = controller.key_states
    return {
        "version": VERSION,
        "unit": budget.unit.value if budget else None,
        "window": [now - controller.window_before, now - controller.window_began],
        "ticked": now - controller.ticked,
        "certain": controller.certain,
        "certain_rate": controller.certain_rate,
        "guarded": controller.guarded,
        "over_ceiling": {limit.reason.value: limit.over for limit in controller.always.limits},
        "account": None if guard is None else [guard.tokens.level, *guard.last_minute()],
        "ceilings": {limit.reason.value: limit.levels for limit in controller.always.limits},
        "keys": [[list(key), _key(state, now)] for key, state in keys.states.items()],
        "other": _key(keys.other, now),
        "sites": {
            site: [now - state.last_seen, *(getattr(state, name) for name in _SITE_NUMBERS)]
            for site, state in controller.sites.states.items()
        },
        "releases": {name: [count, now - seen] for name, (count, seen) in controller.always.releases.items()},
    }


def restore(controller: Controller, data: dict[str, Any], now: float) -> None:
    """Set a new controller's measurements from the result of `state_of`; raise `ValueError` if the data is invalid."""
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise ValueError(f"the data is not a sampler state of version {VERSION}")
    try:
        _restore(controller, data, now)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"the sampler state is invalid: {error!r}") from error


def _restore(controller: Controller, data: dict[str, Any], now: float) -> None:
    policy = controller.policy
    keys = controller.key_states
    states = {
        tuple(map(str, key)): _load_key(KeyState(now, keys.slow_above), known, now) for key, known in data["keys"]
    }
    of_tenants = {tuple(map(str, key)) for key, known in data["keys"] if known.get("tenant")}
    keys.restore(dict(list(states.items())[: policy.max_keys]), of_tenants, now)
    _load_key(keys.other, data["other"], now)
    for site, (age, *numbers) in list(data["sites"].items())[: policy.max_sites]:
        controller.sites.states[site] = _load_site(SiteState(now), now - age, numbers)
    controller.sites.apply_rules()
    controller.always.releases = {
        name: [count, now - age] for name, (count, age) in list(data["releases"].items())[: policy.max_releases]
    }
    before, began = data["window"]
    controller.window_before, controller.window_began = now - before, now - began
    for limit in controller.always.limits:
        limit.over = int(data["over_ceiling"].get(limit.reason.value, 0))
    controller.guarded = int(data["guarded"])
    # Values in another unit do not apply: those rates and levels are measured again.
    if data["unit"] == (policy.budget.unit.value if policy.budget else None):
        controller.certain = float(data["certain"])
        controller.certain_rate = float(data["certain_rate"])
        if controller.guard is not None and data["account"]:
            controller.guard.resume(float(data["account"][0]), [float(spent) for spent in data["account"][1:]])
        for limit in controller.always.limits:
            limit.resume([float(level) for level in data["ceilings"].get(limit.reason.value, [])])
    else:
        for state in keys.all():
            state.weight_rate = state.adjusted_rate = state.weight = state.adjusted = 0.0
    controller.ticked = now - data["ticked"]
    controller.plan(now)


def _key(state: KeyState, now: float) -> dict[str, Any]:
    return {
        **{name: getattr(state, name) for name in _RATES},
        "age": now - state.last_seen,
        "tenant": state.tenant is not None,
        "probability": state.probability,
        "slow_above": state.slow_above if state.slow_above < float("inf") else None,
        "durations": None if state.durations is None else state.durations.dump(),
        "tally": state.tally.dump(),
        "earlier": None if state.earlier is None else state.earlier.dump(),
    }


def _load_key(state: KeyState, known: dict[str, Any], now: float) -> KeyState:
    for name in _RATES:
        setattr(state, name, type(getattr(state, name))(known[name]))
    state.last_seen = now - known["age"]
    if known["durations"] is not None:
        state.durations = LogHistogram.load(known["durations"])
    if known["slow_above"] is not None:
        state.slow_above = min(state.slow_above, known["slow_above"])
    state.tally = Tally.load(known["tally"])
    state.earlier = None if known["earlier"] is None else Tally.load(known["earlier"])
    return state


def _load_site(state: SiteState, last_seen: float, numbers: list[float]) -> SiteState:
    state.last_seen = last_seen
    for name, number in zip(_SITE_NUMBERS, numbers, strict=True):
        setattr(state, name, float(number))
    return state
