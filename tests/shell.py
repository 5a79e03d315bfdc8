"""How a real shell reads a command that was printed."""

import subprocess


def words(line):
    """Returns the arguments of a printed ``swirl ...`` command as bash reads them."""
    script = f"swirl() {{ printf '%s\\0' \"$@\"; }}; {line}"
    output = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout
    return output.decode("utf-8", "surrogateescape").split("\0")[:-1]
