"""What a program hands to daebus: checked when it does, and refused in a sentence.

May import: ``errors``. Pure.

* ``annotations``: arguments of constructors and decorators, against their annotations.
* ``functions``: what a function can be called with, and what calling it gives.
"""
