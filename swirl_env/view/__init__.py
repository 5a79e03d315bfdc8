"""Looking at trajectories: one self-contained HTML page, or one episode in the terminal."""
