"""How far a step signal can be trusted: exact values of states from gold plans, values of a policy, and agreement with both."""
