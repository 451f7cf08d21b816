"""The half of the method that invents detail: a diffusion prior held to the input by range-null projection."""
