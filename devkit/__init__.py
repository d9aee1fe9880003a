"""Tools for development that the product never imports: private engines, checks, generators."""
