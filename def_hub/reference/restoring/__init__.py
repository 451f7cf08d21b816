"""Restoring: the references' texture is transferred (`transfer`, `deformable`) and blended into the image
(`aggregation`). `ttsr` has both steps as TTSR published them.
"""
