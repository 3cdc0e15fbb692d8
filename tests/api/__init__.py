"""Tests of rtpush.api."""
