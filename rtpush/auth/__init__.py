"""Who may: API keys and origins."""

__all__: list[str] = []
