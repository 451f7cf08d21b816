"""What is known about the input: the operator that degraded it, and the images that agree with it."""
