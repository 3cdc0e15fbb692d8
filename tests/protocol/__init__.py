"""Tests of rtpush.protocol."""
