"""Suffixes and names of files that tell the forms of data apart."""

# Formats that Pillow may not read are included, so such files count as skipped.
_COMMON = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_RARE = (".ppm", ".pgm", ".jp2", ".avif", ".heic", ".heif")
PICTURE_SUFFIXES = _COMMON + _RARE

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".jsonl", ".json")
# The datasets library writes one of these into every folder that it saves.
SAVED_FILES = ("dataset_dict.json", "state.json")
