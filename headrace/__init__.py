"""The command line: thin, it ties the other packages together."""
