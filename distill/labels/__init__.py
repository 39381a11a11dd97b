"""Label sets, names of classes and templates of prompts."""
