"""The data plane: packets in, packets out, no GIL and no rooms."""
