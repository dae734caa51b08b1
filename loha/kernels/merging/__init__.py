"""Merging: `single` takes one weight, `whole_file` all of a file; `cpu`, `stacked` and `triton` do the work."""
