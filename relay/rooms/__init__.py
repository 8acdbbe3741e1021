"""Pure policy of a room: who is in it, what is published, who may see what. Speaks intents, never packets.

No socket, clock, task or random number in here: sids and times are arguments, and what has to happen outside is
returned as a list of intents (`relay.rooms.intents`), in the order in which it has to happen.
"""
