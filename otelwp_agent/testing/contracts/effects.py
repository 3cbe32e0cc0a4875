"""Contracts about effects on items: a stage has all the effects that it declares, and no others.

The component processes a corpus that contains the strings of its example (`otelwp_agent.testing.corpus`).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from otelwp_agent.component import Effect
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.testing.contract import contract
from otelwp_agent.testing.corpus import unknown
from otelwp_agent.testing.items import Item, items_of
from otelwp_agent.testing.requirement import STAGES, require

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.signal import Signal
    from otelwp_agent.testing.subject import Subject

    Passed = dict[Signal, tuple[list[Batch], list[Batch]]]


@contract(kinds=STAGES)
async def effects_are_as_declared(subject: Subject) -> None:
    """Have exactly the declared `effects` on the corpus, with the settings of the example.

    This detects a component that does nothing by mistake, and one that makes other changes than declared.

    `Effect.EDITS`: at least one item is changed. `Effect.DROPS`: at least one item is settled as sampled out or
    filtered instead of being forwarded. Without them: every item is forwarded unchanged. If the component acts on data
    that the corpus lacks, add requests to it (`ComponentContract.requests`).
    """
    if _makes_another_signal(subject):
        return
    passed = await subject.passed()
    changed = {signal: _items(forwarded) - _items(given) for signal, (given, forwarded) in passed.items()}
    missing = {signal: _sum(given) - _sum(forwarded) for signal, (given, forwarded) in passed.items()}
    if Effect.EDITS in subject.factory.effects:
        require(any(changed.values()), "it declares Effect.EDITS, but no item of the corpus is changed")
    else:
        for signal, items in changed.items():
            count = items.total()
            require(not items, f"{count} {signal.items} are changed, but it does not declare Effect.EDITS")
    if Effect.DROPS in subject.factory.effects:
        require(any(missing.values()), "it declares Effect.DROPS, but every item of the corpus is forwarded")
    else:
        for signal, number in missing.items():
            require(not number, f"{number} {signal.items} are not forwarded, but it does not declare Effect.DROPS")
    for signal, (given, _) in passed.items():
        dropped = sum(receipt.count(Outcome.DROPPED) for batch in given for receipt, _ in batch.shares)
        require(
            not dropped,
            f"{dropped} {signal.items} are settled as dropped, which means lost: use sampled out or filtered",
        )


@contract(kinds=STAGES)
async def every_entry_of_the_example_matters(subject: Subject) -> None:
    """Give every list item in the example an effect.

    This detects an action, a key or a pattern that has no effect, even if others work. Each item of each list in the
    example's settings is removed in turn, if the configuration is valid without it; the forwarded items must then be
    different. This is for stages that declare an effect.
    """
    if not subject.factory.effects or _makes_another_signal(subject):
        return
    settings = subject.settings()
    whole = _forwarded(await subject.passed(settings))
    for path, reduced in _reductions(settings):
        try:
            subject.factory.config.model_validate(reduced)
        except ValidationError:
            continue
        without = _forwarded(await subject.passed(reduced))
        require(whole != without, f"the result for the corpus is the same with and without `{path}`")


@contract(kinds=STAGES)
async def unknown_fields_survive(subject: Subject) -> None:
    """Keep fields that OTLP does not have yet, at every level.

    They must pass from a newer sender to a newer backend through an older agent. Projections keep them.
    """
    if _makes_another_signal(subject):
        return
    for signal, (_, forwarded) in (await subject.passed()).items():
        for item in [item for batch in forwarded for item in items_of(signal, batch.body)]:
            for level, data in (("resource", item.resource), ("scope", item.scope), ("item", item.item)):
                kept = unknown(level) in data or not _from_the_corpus(item)
                require(kept, f"the unknown field of a {level} is missing in {signal.value}")


def _makes_another_signal(subject: Subject) -> bool:
    """Return whether a connector computes another signal, so that input and output cannot be compared."""
    return subject.factory.emits not in {None, subject.factory.signals}


def _from_the_corpus(item: Item) -> bool:
    """Return whether an item is from the corpus itself, not from the requests that were added to it."""
    return b"io.example.library" in item.scope


def _items(batches: Sequence[Batch]) -> Counter[Item]:
    return Counter(item for batch in batches for item in items_of(batch.signal, batch.body))


def _sum(batches: Sequence[Batch]) -> int:
    return sum(batch.items for batch in batches)


def _forwarded(passed: Passed) -> dict[Signal, Counter[Item]]:
    return {signal: _items(forwarded) for signal, (_, forwarded) in passed.items()}


def _reductions(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (path of a list item, settings without this item) for each list item at any depth."""
    for key, value in settings.items():
        for below, reduced in _reduced(value, f"{path}{key}"):
            yield below, {**settings, key: reduced}


def _reduced(value: object, path: str) -> Iterator[tuple[str, object]]:
    """Yield (path of a list item, `value` without this item) for each list item at any depth."""
    if isinstance(value, dict):
        yield from _reductions(value, f"{path}.")
    elif isinstance(value, list):
        for index, each in enumerate(value):
            before, after = value[:index], value[index + 1 :]
            yield f"{path}[{index}]", [*before, *after]
            for below, reduced in _reduced(each, f"{path}[{index}]"):
                yield below, [*before, reduced, *after]


CONTRACTS = (effects_are_as_declared, every_entry_of_the_example_matters, unknown_fields_survive)
