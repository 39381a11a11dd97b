"""Looks at a recipe's data and models before hours are spent on them."""
