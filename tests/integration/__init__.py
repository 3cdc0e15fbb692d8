"""Tests of whole programs: real servers, real clients, a real proxy between them."""

__all__: list[str] = []
