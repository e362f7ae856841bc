"""The system as it runs: Router and Engine on Ray Serve, the link between them, the wire formats."""
