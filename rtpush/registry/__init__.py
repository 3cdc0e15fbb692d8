"""The registry: all connections and subscriptions of this node, and the fan-out to them."""

__all__: list[str] = []
