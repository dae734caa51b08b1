"""A run from its first step to its files: the loop, what is kept to go on from, what is told meanwhile."""
