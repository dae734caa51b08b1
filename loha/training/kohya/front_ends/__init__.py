"""What programs around kohya's scripts write, under the scripts' own keys: one file a program."""
