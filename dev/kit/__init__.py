"""What shows and checks the project: a ComfyUI with the pack in it, sample models, a browser, the graphs."""
