"""The deterministic simulator: fluxkv's production roles on a memory store in virtual time, under seeded faults.

`play.play(seed)` is a whole life: storm, calm, audit. See tests/README.md.
"""
