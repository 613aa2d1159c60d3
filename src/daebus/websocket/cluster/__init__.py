"""The nodes of one app: processes that a backplane joins.

May import: what stands below ``hub``, and ``backplane``. ``node`` is the life of this node,
``peers`` knows the others, ``ledger`` counts what was lost between them.
"""
