"""What is known of the picture that was given: how it came about, and the pictures that agree with it."""
