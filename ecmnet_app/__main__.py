"""`python -m ecmnet_app` is `ecmnet`."""

import sys

from ecmnet_app.cli import main

sys.exit(main())
