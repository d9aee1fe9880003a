"""What developing needs and the product never imports: private engines, checks, generators."""
