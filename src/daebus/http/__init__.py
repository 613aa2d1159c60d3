"""HTTP. Werkzeug is imported in this folder only."""
