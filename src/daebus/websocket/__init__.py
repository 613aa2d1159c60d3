"""Messages over WebSocket. The ``websockets`` package is imported in this folder only."""
