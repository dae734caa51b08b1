"""The network that is trained: which layers get a LoHa, its parameters, and the forward pass through them."""
