"""Property tests of the data plane: the same examples in every run; VEIL_SEED draws others."""

import os

from hypothesis import settings

# No deadline: a shared machine stalls longer than any example takes.
settings.register_profile("veil", deadline=None, derandomize="VEIL_SEED" not in os.environ)
settings.load_profile("veil")
