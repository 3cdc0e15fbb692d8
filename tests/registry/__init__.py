"""Tests of rtpush.registry."""
