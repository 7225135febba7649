"""A decoder's report for a paper's supplement: gathered once, written as HTML and as PDF."""
