"""fnflare: functional neural nets on NumPy and MKL."""
