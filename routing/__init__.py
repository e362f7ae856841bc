"""Who may come in, who is next, and which replica? Pure: stdlib only; time is an argument."""
