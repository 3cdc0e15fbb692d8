"""Tests of rtpush.planning."""
