"""Tests of rtpush.cli."""
