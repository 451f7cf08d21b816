"""The half of the method that invents detail: a diffusion prior, kept consistent with the input by range-null
projection.
"""
