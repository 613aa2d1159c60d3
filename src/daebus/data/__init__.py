"""What a program has, as JSON: one encoder for messages and views.

May import: ``errors`` and ``interrupts``. orjson is imported in this folder alone.

* ``encoder``: values to JSON, by the fastest way that gives the right answer.
* ``depth``: how deep data may be nested, before it is parsed or encoded; imports nothing.
* ``forms``: what an object becomes that JSON does not know.
* ``plain``: the way that is taken after a failure; it knows where in the data it is.
* ``fastjson``: orjson where it is installed.
"""
