"""A study in Python: tables, arrays and surfaces that show themselves in a notebook. No Gradio.

`explorer.open_study` opens one; `study.Study` says what it gives.
"""
