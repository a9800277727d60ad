"""Tasks of many objectives, agents that follow a script, and the managers of their context that are compared."""
