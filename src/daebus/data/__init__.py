"""What a program has, as JSON: one encoder for messages and views.

May import: ``errors``, ``depth`` and ``interrupts``. orjson is imported in this folder alone.

* ``encoder``: values to JSON, by the fastest way that gives the right answer.
* ``forms``: what an object becomes that JSON does not know.
* ``plain``: the way that is taken after a failure; it knows where in the data it is.
* ``fastjson``: orjson where it is installed.
"""
