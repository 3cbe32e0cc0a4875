from typing import Annotated

import pytest
from pydantic import Field

from otelwp_agent.component import ComponentConfig, KeptPercentage, NeedsTier, Tier
from otelwp_agent.config.blocks import Block
from otelwp_agent.pipeline.tier_settings import fitted
from otelwp_agent.processors.wordpress import Config as WordPressConfig


class Rule(Block):
    share: Annotated[float, KeptPercentage()] = 1.0
    seal: Annotated[bool, NeedsTier(Tier.PRO)] = False
    sites: Annotated[bool, NeedsTier(Tier.ENTERPRISE, otherwise=False)] = True


class RulesConfig(ComponentConfig):
    rule: Rule = Rule()
    rules: list[Rule] = Field(default_factory=list)
    more: dict[str, tuple[Rule, ...]] = Field(default_factory=dict)
    extra: Annotated[Rule | None, NeedsTier(Tier.PRO)] = None
    label: str = Field("", alias="name")


def test_a_configuration_within_the_tier_is_the_same_object():
    config = RulesConfig(rules=[Rule(share=50, seal=True)], extra=Rule(), name="a")
    assert fitted(config, Tier.ENTERPRISE) == (config, [])
    assert fitted(config, Tier.ENTERPRISE)[0] is config
    plain = RulesConfig(rule=Rule(sites=False), rules=[Rule(share=10, sites=False)])
    assert fitted(plain, Tier.FREE)[0] is plain


def test_settings_at_any_depth_get_the_value_of_the_tier():
    rules = [Rule(share=10, sites=False), Rule(share=50, seal=True)]
    config = RulesConfig(rules=rules, more={"a": (Rule(seal=True),)}, extra=Rule(share=20), name="a")
    reduced, changes = fitted(config, Tier.FREE)
    assert reduced.rules == [rules[0], Rule(share=10, seal=False, sites=False)]
    assert reduced.rules[0] is rules[0]
    assert reduced.more == {"a": (Rule(sites=False),)}
    assert (reduced.extra, reduced.label) == (None, "a")
    assert config.rules[1].share == 50, "the configuration itself stays as it is"
    assert changes == [
        (("rule", "sites"), "false"),
        (("rules", 1, "share"), "10"),
        (("rules", 1, "seal"), "false"),
        (("rules", 1, "sites"), "false"),
        (("more", "a", 0, "seal"), "false"),
        (("more", "a", 0, "sites"), "false"),
        (("extra",), "left out"),
    ]


def test_a_tier_between_changes_only_what_is_above_it():
    reduced, changes = fitted(RulesConfig(rules=[Rule(share=50, seal=True)], extra=Rule()), Tier.PRO)
    assert reduced.rules == [Rule(share=50, seal=True, sites=False)]
    assert [path for path, _ in changes] == [("rule", "sites"), ("rules", 0, "sites"), ("extra", "sites")]


@pytest.mark.parametrize(("tier", "enabled"), [(Tier.FREE, False), (Tier.PRO, False), (Tier.ENTERPRISE, True)])
def test_sites_of_a_network_are_distinguished_on_the_highest_tier(tier, enabled):
    reduced, _ = fitted(WordPressConfig(), tier)
    assert reduced.multisite.enabled is enabled
    suffixed, _ = fitted(WordPressConfig.model_validate({"multisite": {"suffix": "/{id}"}}), tier)
    assert suffixed.multisite.suffix == ("/{id}" if enabled else "-site-{id}")
