"""What mappers are made of: a module here serves one of them, or several."""
