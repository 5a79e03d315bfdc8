"""The one config tree of the command line (a package, so that hydra finds it as pkg://swirl_env.conf)."""
