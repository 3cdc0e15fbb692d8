"""Tests of rtpush.client."""
