"""What a program hands to daebus: checked when it does, and refused in a sentence.

May import: ``errors``. Pure.

* ``arguments``: numbers, names and paths of which annotations cannot say enough.
* ``annotations``: arguments of constructors and decorators, against their annotations.
* ``functions``: what a function can be called with, and what calling it gives.
"""
