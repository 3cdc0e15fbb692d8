"""Tests of rtpush.broker."""
