"""Beliefs that are made of other beliefs."""
