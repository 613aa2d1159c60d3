"""Sockets and threads. Nothing in this folder knows HTTP or WebSocket."""
