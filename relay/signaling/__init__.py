"""The asyncio edge: sessions, their transports, and the adapters that speak a client's protocol.

`conference` is protocol-neutral (join, publish, subscribe, data, leave as plain calls and events); `livekit` is an
adapter over it.
"""
