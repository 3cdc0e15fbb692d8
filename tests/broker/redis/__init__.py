"""Tests of rtpush.broker.redis."""
