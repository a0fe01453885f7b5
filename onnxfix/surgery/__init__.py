"""How a graph is changed: a plan becomes nodes at the boundary, and adapters are cancelled."""
