"""Published networks for ×4 super-resolution, one file each, written from their papers.

Every network takes images `[B,3,h,w]` in `[0,1]` and returns `[B,3,4h,4w]` in the same range, not clipped. Those that
use references take them as a second argument. The range and the mean colour that a network was trained with are inside
it. Modules bear the names of the authors' code: `convert.checkpoint.load_strictly` reads published weights.
"""
