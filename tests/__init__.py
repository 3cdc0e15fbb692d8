"""The tests, under twisted.trial; ``make test`` runs them all."""

from __future__ import annotations

import os

import hypothesis

__all__: list[str] = []

hypothesis.settings.register_profile(
    "rtpush",
    deadline=None,  # a busy machine is not a failure
    suppress_health_check=[hypothesis.HealthCheck.too_slow],  # neither is a slow one
    derandomize="CI" in os.environ,  # a change must not fail there for what it did not touch
    print_blob=True,
)
hypothesis.settings.load_profile("rtpush")
