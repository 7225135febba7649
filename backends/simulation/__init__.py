"""Simulated pictures and simulated brains: data whose truth is known exactly."""
