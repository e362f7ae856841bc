"""How many replicas should there be, and why? Pure: stdlib and itself only, so that Serve can ship it by value."""
