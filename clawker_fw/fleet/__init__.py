"""Several hosts: what each of them gets, by the means of a swarm."""
