"""Who may: API keys, origins, tokens and what they permit."""

__all__: list[str] = []
