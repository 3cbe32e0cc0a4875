"""Heartbeats of plugins, recorded in a store."""

from datetime import UTC, datetime

from otelwp_agent.control.fleet.beats import Beat, record_beats

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def beat(tenant="acme", **fields):
    """Return a heartbeat of a WooCommerce plugin."""
    return Beat(
        **{
            "tenant": tenant,
            "cms": "woocommerce",
            "environment": "production",
            "site_id": "",
            "plugin_version": "1.3.5",
            **fields,
        }
    )


def sent(connection, *beats, now=NOW):
    return record_beats(connection, beats, now)
