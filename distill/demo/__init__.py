"""The demo: a recipe, a small teacher and the story they tell."""
