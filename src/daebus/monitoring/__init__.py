"""What a running app tells operators.

May import: everything below the app.

* ``dump``: threads, tasks and connections as text.
"""
