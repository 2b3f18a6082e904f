"""Run `vtcav_jax.cli.main`: `python main.py TASK ...` is the same as `vtcav TASK ...`."""

from vtcav_jax.cli.main import start

if __name__ == "__main__":
    start()
