"""Texture is carried over from the references (`transfer`, `deformable`) and blended in (`aggregation`).

`ttsr` has the same two steps as that paper published them.
"""
