"""Where tensors are read: hooks, sites, the autograd graph."""
