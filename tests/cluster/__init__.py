"""A package, unlike the other directories: pytest ends a package's fixtures, here the cluster, with its last test."""
