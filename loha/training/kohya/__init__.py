"""kohya's configurations in our settings; `keys` says of every key what it becomes, or why not."""
