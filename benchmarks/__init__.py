"""The benchmarks of daebus: a load generator, small servers of daebus and its peers, and a report.

Run them with ``make bench``, or ``python -m benchmarks --help`` from the top of the repository.
"""
