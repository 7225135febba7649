"""Small data sets written file by file from the published layouts, for tests of many rooms."""
