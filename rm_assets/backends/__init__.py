"""Backends: how responses are sampled, rewards computed and models trained. The contracts are in `core/protocols.py`."""
