"""Inside the trainers and evaluators that people already run."""
