"""`python -m vtcav_jax --task=TASK ...`"""

from vtcav_jax.cli.main import start

if __name__ == "__main__":
    start()
