"""HTTP. Werkzeug and h11 are imported in this folder only."""
