"""The only place that knows the layout on the store."""
