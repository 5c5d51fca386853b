"""Procedural street scenes for Blender: what stands in a street, where, and how it is rendered with exact labels."""
