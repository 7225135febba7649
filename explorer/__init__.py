"""What stays when a new paper comes: the nouns, the workbench and the page."""
