"""Complete NumPyro models, with priors, of what an optimizer sees."""
