"""How the parameters move: optimisers by name, learning rates over the steps."""
