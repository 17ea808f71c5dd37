"""The wire contract: what the bytes in topics and objects are.

Pure; see ``README.md`` for the evolution rules.
"""
