"""The pure core: what the logs mean. No clock, no randomness, no I/O, no logging; everything is an argument.

Read in this order: ``events`` (what comes in and goes out), ``state`` (what a partition remembers), ``fold``
(the one transition function), ``merge`` (regions to one global step), ``policy`` (every limit, with its
default).
"""
