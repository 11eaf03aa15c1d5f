"""Unary calls that travel together: many at once on one stream of the service's ExchangeService.

A unary RPC costs a Python client and a Python server some 250 us of CPU each, whatever it does; a call on an open stream
costs a tenth of that. What is called while the last message is being written goes with the next.

    call ─> Exchange ─> a stream to each of a few server processes ─> reply
               │
               └─> a plain RPC, where there is no exchange, or the call is large

What a call does when its stream breaks follows one rule: it is sent again when the server cannot have run it, or when it
is idempotent; otherwise it fails as a plain RPC would.
"""

from agentstorage.exchange.call import LARGEST, ExchangedCall, FutureCall
from agentstorage.exchange.streams import Exchange

__all__ = ["LARGEST", "Exchange", "ExchangedCall", "FutureCall"]
