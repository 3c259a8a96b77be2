"""Many devices in one process, on the real wire: for trying out rollouts and for measuring a server.

What one device does is decided in `walk` and `device`, without I/O and with `now` as an argument; `fleet` has
the one loop that carries it out for all of them.
"""
