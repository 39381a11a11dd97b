"""The names of OpenAI's models, as plain data that a recipe can be checked with."""

OPENAI_MODELS = (
    "RN50",
    "RN101",
    "RN50x4",
    "RN50x16",
    "RN50x64",
    "ViT-B/32",
    "ViT-B/16",
    "ViT-L/14",
    "ViT-L/14@336px",
)
# Suffixes of the weights that OpenAI distributes, unlike those of transformers.
OPENAI_SUFFIXES = (".pt", ".pth")
