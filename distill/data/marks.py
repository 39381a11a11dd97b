"""What tells the forms of data apart: suffixes and names of files."""

# Forms that this Pillow cannot read are listed too: they are counted as skipped, not passed over.
_COMMON = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_RARE = (".ppm", ".pgm", ".jp2", ".avif", ".heic", ".heif")
PICTURE_SUFFIXES = _COMMON + _RARE

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".jsonl", ".json")
# One of these is in every folder that the datasets library saved.
SAVED_FILES = ("dataset_dict.json", "state.json")
