"""What tests with real processes share: rtpush, nginx and a browser, a proxy that cuts, clients of a few lines."""

__all__: list[str] = []
