"""Figures about data, mappers, pictures and the embedded study, as plain functions."""
