"""An engine in memory, which passes the same contract suite as the Docker one."""
