"""One self-contained page about a finished sweep, readable offline."""
