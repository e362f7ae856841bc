"""What holds for every test?"""

import os

import hypothesis

# A busy machine is no failure: tests that are about time say so themselves. Where changes are judged, the examples
# are always the same ones; elsewhere each run draws new ones.
judged = bool(os.environ.get("CI"))
hypothesis.settings.register_profile("project", deadline=None, print_blob=True, derandomize=judged)
hypothesis.settings.load_profile("project")
# `make check` is typed often: fewer examples each time.
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("project"), max_examples=25)
