"""`python -m vtcav_jax TASK ...`, the same as `vtcav TASK ...`."""

from vtcav_jax.cli.main import start

if __name__ == "__main__":
    start()
