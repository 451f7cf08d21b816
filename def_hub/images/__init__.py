"""The border: files, Pillow images and arrays on one side, float tensors `[B,3,H,W]` in `[0,1]` on the other.

This is the only place that opens pictures, for inference, training, page and command line alike, and that knows 8-bit
values, alpha, palettes, orientation, colour profiles and file formats. Inside, colours are sRGB.
"""

from def_hub.colour_space import ColourSpace
from def_hub.formats import MAX_PIXELS, MIN_SIDE, UnreadableImage
from def_hub.images.opening import (
    ImageLike,
    Photo,
    drawn_mask,
    list_pictures,
    open_rgb,
    read_photo,
    sort_files,
    to_photo,
    to_photos,
    to_tensor,
)
from def_hub.images.resampling import pad_to_multiple, resized_part, shrink
from def_hub.images.saving import SUFFIXES, check_suffix, check_writable, save_image, to_array16, to_pil, with_alpha

__all__ = [
    "MAX_PIXELS",
    "MIN_SIDE",
    "SUFFIXES",
    "ColourSpace",
    "ImageLike",
    "Photo",
    "UnreadableImage",
    "check_suffix",
    "check_writable",
    "drawn_mask",
    "list_pictures",
    "open_rgb",
    "pad_to_multiple",
    "read_photo",
    "resized_part",
    "save_image",
    "shrink",
    "sort_files",
    "to_array16",
    "to_photo",
    "to_photos",
    "to_pil",
    "to_tensor",
    "with_alpha",
]
