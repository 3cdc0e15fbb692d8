"""Hooks to the application."""
