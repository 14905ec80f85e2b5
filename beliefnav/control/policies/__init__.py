"""Policies: from a posterior at the present parameters to a direction."""
