"""`python -m bioengine_runtime.worker`."""

import sys

from bioengine_runtime.worker.ray_token import use_token
from bioengine_runtime.worker.settings import read_settings

if __name__ == "__main__":
    settings = read_settings()
    use_token(settings.ray_auth_token_file)
    from bioengine_runtime.worker.process import main  # imports Ray, so not before

    sys.exit(main(settings))
