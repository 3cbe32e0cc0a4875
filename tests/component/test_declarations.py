from otelwp_agent.component import Kind, Tier


def test_a_kind_is_named_in_the_singular():
    assert [kind.label for kind in Kind] == ["receiver", "processor", "exporter", "connector", "extension"]


def test_each_tier_includes_the_tiers_before_it():
    enabled = {tier: [needed.value for needed in Tier if tier.enables(needed)] for tier in Tier}
    assert enabled == {
        Tier.FREE: ["free"],
        Tier.PRO: ["free", "pro"],
        Tier.ENTERPRISE: ["free", "pro", "enterprise"],
    }
