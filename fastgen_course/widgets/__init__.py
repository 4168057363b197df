"""What readers touch: ipywidgets components, each with a static figure beside it."""
