"""Instruments of receivers for sealed requests, and for requests that are sent again."""

from __future__ import annotations

from otelwp_agent.telemetry.metrics import Instrument

DUPLICATES = Instrument(
    "otelwp_receiver_duplicate_requests",
    "Requests that were acknowledged and not processed, because they were accepted before.",
    labels=("receiver",),
)
ENVELOPES = Instrument(
    "otelwp_receiver_sealed_requests",
    "Sealed requests that were opened, or forwarded as they are.",
    labels=("receiver", "mode"),
)
