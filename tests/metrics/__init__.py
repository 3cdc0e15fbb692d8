"""Tests of :mod:`rtpush.metrics`."""
