"""Names of OpenAI's models and suffixes of its files: plain data that recipes may import."""

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
# OpenAI distributes its weights under these; transformers uses others.
OPENAI_SUFFIXES = (".pt", ".pth")
