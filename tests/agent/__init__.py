"""The device side, on real parts."""
