"""A study as a folder of plain files: the page's own components, without a server."""
