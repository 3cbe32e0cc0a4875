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


HEARTBEAT = {
    "merchant_id": "acme",
    "cms": "woocommerce",
    "plugin_version": "1.3.5",
    "sdk_language": "php",
    "errors_last_hour": 0.5,
    "environment": "production",
    "php_version": "8.1.0",
    "wordpress_version": "6.4",
    "server_info": {"server_software": "Apache/2.4.56", "max_execution_time": "300", "memory_limit": "256M"},
}
EVENT = {
    "merchant_id": "acme",
    "cms": "woocommerce",
    "event_type": "payment_failed",
    "event_data": {
        "order_id": "12345",
        "amount": 55000,
        "currency": "XOF",
        "error_code": "card_declined",
        "message": "Insufficient funds",
    },
    "severity": "error",
    "stack_trace": "...",
}
