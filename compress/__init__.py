"""How does a model become smaller, and what did it lose? Recipe -> steps -> artefact -> report."""
