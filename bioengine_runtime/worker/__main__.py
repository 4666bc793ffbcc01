"""`python -m bioengine_runtime.worker`."""

import sys

from bioengine_runtime.worker.process import main

sys.exit(main())
