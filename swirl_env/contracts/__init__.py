"""What each kind of plugin promises, one module a kind, as rules that make real calls; `swirl_env.contract` runs them."""
