"""Pure decisions of the device: no I/O, no clock."""
