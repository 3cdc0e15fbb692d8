"""Tests of rtpush.auth."""
