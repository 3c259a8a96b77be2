"""The languages in which an inference can be asked for. Each module reads one: `read(request, serving)`."""
