"""Restoring: the references' texture is transferred (`transfer`, `deformable`) and blended into the image
(`aggregation`). Where the image lost more than shrinking takes, references say more than the network was taught: of
pictures shrunk by "nearest" the samples test them (`samples`), of others their own degraded copies (`regained`). `ttsr`
has transfer and blending as TTSR published them.
"""
