"""Imports: what LangGraph's own stores and savers kept elsewhere, brought into the service's tables.

An import goes through its source in order, in batches that are each a transaction of their own, and overwrites nothing. So it can be
interrupted anywhere and run again: what is there already is compared with the source, as is what was written, once it is committed.
"""
