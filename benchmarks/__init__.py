"""fnflare beside PyTorch, JAX and autograd: the same work, in turn, on the same machine."""
