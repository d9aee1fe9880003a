"""The commands for several hosts."""

from clawker_fw.cli import fleet_stack as fleet_stack
