"""The stages that make the embedded study: one file a model, one for the study."""
