"""Whole paths: least action, and plans that are remade on the way."""
