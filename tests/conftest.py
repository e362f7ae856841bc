"""What holds for every test?"""

import hypothesis

# A busy machine is no failure: tests that are about time say so themselves.
hypothesis.settings.register_profile("project", deadline=None, print_blob=True)
hypothesis.settings.load_profile("project")
