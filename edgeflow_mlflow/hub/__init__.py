"""The one elected process: its election and its loops."""
