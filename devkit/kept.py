"""Where is kept what takes minutes to make: once for a user of a machine, whatever checkout it is for.

Each has a name that says what it is made from.
"""

import platformdirs

KEPT = platformdirs.user_cache_path("clawker-fw-devkit")
