"""How long does a step of a paced engine last?"""

STEP_S = 0.05
"""Long beside what a step of the tiny model costs: several engines then need a small part of two cores."""
