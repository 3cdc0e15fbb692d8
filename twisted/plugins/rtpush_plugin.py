"""Makes ``twistd rtpush`` known."""

from twisted.application.service import ServiceMaker

rtpush = ServiceMaker("rtpush", "rtpush.service.tap", "A real-time push server.", "rtpush")
