"""Run `vtcav_jax.cli.main`: `python main.py --task=TASK ...`; `--help` lists the tasks and their flags."""

from vtcav_jax.cli.main import start

if __name__ == "__main__":
    start()
