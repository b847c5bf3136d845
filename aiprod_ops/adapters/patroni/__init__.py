"""A cluster that Patroni runs, through its REST API: `cluster.PatroniCluster` and what it is made of."""
