"""Tests of rtpush.service."""
