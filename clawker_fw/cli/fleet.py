"""The commands for several hosts."""

import clawker_fw.cli.fleet_stack  # noqa: F401 - it adds its command to the group
